-- Who did what to holds and wallets, and why: freezes, backjobs, early releases, refunds without a backjob, claw-backs,
-- recovered and forgiven debts, moved release dates, deposits and withdrawals. A row for each fact (source, id) of
-- :sources and :ids, in their order. A claw-back has one for each transaction, and for each debt without one;
-- audit_newest.sql and audit_of_holds.sql find them. Each fact is read from where it was written. A decision on a
-- backjob has a row for each of its holds. A share's freeze that follows its earning's cannot be closed alone, so its
-- row has the id and the references of the earning's.
SELECT
  CASE fact.source
    WHEN 'OPENED' THEN hold_freeze.opened_at
    WHEN 'CLOSED' THEN hold_freeze.closed_at
    WHEN 'LINE' THEN audit_line.at
    WHEN 'DEBT' THEN unpaid.opened_at
    ELSE transaction.recorded_at
  END AS at,
  CASE fact.source
    WHEN 'OPENED' THEN hold_freeze.opened_by
    WHEN 'CLOSED' THEN hold_freeze.closed_by
    WHEN 'BATCH' THEN batch.source
    WHEN 'DEBT' THEN batch.source
    ELSE audit_line.by
  END AS by,
  CASE
    WHEN fact.source = 'LINE' THEN audit_line.verb
    WHEN fact.source = 'MOVED' AND transaction.type = 'DEPOSIT' THEN 'DEPOSIT'
    WHEN fact.source = 'MOVED' THEN 'WITHDRAW'
    WHEN fact.source = 'DEBT' THEN 'CLAW_BACK'
    WHEN fact.source = 'BATCH' AND transaction.type = 'EARNING_PART' THEN 'RELEASE_PART'
    WHEN fact.source = 'BATCH' AND transaction.type IN ('CLAWBACK', 'ADVANCE') THEN 'CLAW_BACK'
    WHEN fact.source = 'BATCH' AND transaction.type = 'RECOVERY' THEN 'RECOVER_DEBT'
    WHEN fact.source = 'BATCH' AND transaction.type = 'WRITE_OFF' THEN 'FORGIVE_DEBT'
    WHEN fact.source = 'BATCH' AND batch.kind = 'EARLY' THEN 'RELEASE_EARLY'
    WHEN fact.source = 'BATCH' THEN 'REFUND'
    WHEN fact.source = 'OPENED' AND hold_freeze.kind = 'BACKJOB' THEN 'REQUEST_BACKJOB'
    WHEN fact.source = 'OPENED' THEN 'FREEZE'
    WHEN backjob.state = 'REJECTED' THEN 'REJECT_BACKJOB'
    WHEN backjob.state = 'APPROVED' THEN 'APPROVE_BACKJOB'
    WHEN backjob.state = 'WITHDRAWN' THEN 'WITHDRAW_BACKJOB'
    ELSE 'UNFREEZE'
  END AS verb,
  wallet.owner,
  hold.hold_id,
  CASE fact.source
    WHEN 'OPENED' THEN hold_freeze.reason
    WHEN 'CLOSED' THEN hold_freeze.closing_reason
    WHEN 'BATCH' THEN batch.reason
    WHEN 'DEBT' THEN batch.reason
    ELSE audit_line.reason
  END AS reason,
  hold.job,
  hold_freeze.kind,
  coalesce(hold_freeze.earning_freeze_id, hold_freeze.freeze_id) AS freeze_id,
  hold_freeze.owner_freeze_id,
  hold_freeze.backjob_id,
  batch.batch_id,
  coalesce(transaction.transaction_id, refund.transaction_id) AS transaction_id,
  coalesce(transaction.debt_id, unpaid.debt_id) AS debt_id,
  coalesce(transaction.amount_minor, refund.amount_minor, unpaid.amount_minor) AS amount_minor,
  coalesce(transaction.currency, refund.currency, unpaid.currency) AS currency,
  CASE
    WHEN fact.source = 'OPENED' THEN coalesce(hold_freeze.reference, of_earning.reference, backjob.reference)
    WHEN fact.source = 'CLOSED'
      THEN coalesce(
        hold_freeze.closing_reference,
        -- That of the closing which closed this share too: the first freeze that it closed has it.
        (
          SELECT max(closing.closing_reference) FROM buffer.hold_freeze AS closing
          WHERE
            (closing.freeze_id = of_earning.freeze_id OR closing.earning_freeze_id = of_earning.freeze_id)
            AND closing.closed_at = hold_freeze.closed_at
            AND closing.closed_by = hold_freeze.closed_by
        ),
        backjob.decision_reference
      )
    ELSE coalesce(audit_line.reference, transaction.reference, batch.reference)
  END AS reference,
  audit_line.from_date,
  audit_line.to_date,
  CAST(audit_line.detail AS text) AS detail
FROM unnest(CAST(:sources AS text[]), CAST(:ids AS bigint[])) WITH ORDINALITY AS fact (source, id, place)
LEFT JOIN buffer.hold_freeze
  ON fact.source IN ('OPENED', 'CLOSED') AND fact.id = hold_freeze.freeze_id
LEFT JOIN buffer.hold_freeze AS of_earning ON hold_freeze.earning_freeze_id = of_earning.freeze_id
LEFT JOIN buffer.backjob ON hold_freeze.backjob_id = backjob.backjob_id
LEFT JOIN buffer.audit_line
  ON
    audit_line.audit_id = CASE
      WHEN fact.source = 'LINE' THEN fact.id
      WHEN fact.source = 'MOVED' THEN (
        SELECT moving.audit_id FROM buffer.audit_line AS moving
        WHERE moving.transaction_id = fact.id
      )
    END
LEFT JOIN buffer.transaction
  ON transaction.transaction_id = CASE
    WHEN fact.source IN ('MOVED', 'BATCH') THEN fact.id
    ELSE audit_line.transaction_id
  END
LEFT JOIN buffer.debt AS unpaid ON fact.source = 'DEBT' AND fact.id = unpaid.debt_id
LEFT JOIN buffer.batch ON coalesce(transaction.batch_id, unpaid.clawback_id) = batch.batch_id
LEFT JOIN buffer.hold
  ON hold.hold_id = coalesce(hold_freeze.hold_id, audit_line.hold_id, transaction.hold_id, unpaid.hold_id)
-- What an approved backjob refunded of this hold.
LEFT JOIN buffer.transaction AS refund
  ON
    fact.source = 'CLOSED'
    AND refund.hold_id = hold_freeze.hold_id
    AND refund.type = 'REFUND'
    AND refund.type <> 'EARNING'
    AND refund.backjob_id = hold_freeze.backjob_id
LEFT JOIN buffer.wallet
  ON
    wallet.wallet_id = coalesce(
      hold.payee_wallet_id,
      -- Of a recovery or a write-off: who owes.
      (
        SELECT debt.wallet_id FROM buffer.debt
        WHERE debt.debt_id = transaction.debt_id
      ),
      CASE WHEN hold.hold_id IS NULL THEN coalesce(transaction.to_wallet_id, transaction.from_wallet_id) END
    )
ORDER BY fact.place
