"""The trigger function `refuse_stray_transactions` of 0014, as revisions 0021 to 0025 extend it."""

from alembic import op

_FUNCTION = """
CREATE OR REPLACE FUNCTION buffer.refuse_stray_transactions() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET random_page_cost = 1.1 SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  stray bigint;
BEGIN
  SELECT min(line.transaction_id) INTO stray
  FROM (
    SELECT inserted.transaction_id
    FROM inserted
    -- Its payee's wallet and its currency. Foreign keys of the hold vouch for the wallets.
    LEFT JOIN buffer.hold
      ON hold.hold_id = inserted.hold_id
      AND hold.currency = inserted.currency
      AND hold.payee_wallet_id = CASE inserted.type
        WHEN 'PENDING_EARNING' THEN inserted.to_wallet_id ELSE inserted.from_wallet_id
      END
    -- Subqueries for a value: EXISTS might read the whole table once, for a line that is looked up.
    WHERE CASE{of_a_debt}{of_a_payout}
      WHEN inserted.hold_id IS NULL THEN (
        SELECT wallet.wallet_id FROM buffer.wallet
        WHERE wallet.wallet_id = coalesce(inserted.from_wallet_id, inserted.to_wallet_id)
          AND wallet.currency = inserted.currency
      ) IS NULL
      WHEN hold.hold_id IS NULL THEN TRUE{earned}
      -- Of a refund its payer's wallet too, and who decided it.
      WHEN inserted.type = 'REFUND' THEN (
        SELECT refunded.hold_id FROM buffer.hold AS refunded
        WHERE refunded.hold_id = inserted.hold_id AND refunded.payer_wallet_id = inserted.to_wallet_id
      ) IS NULL OR (
        SELECT coalesce(
          (SELECT backjob.backjob_id FROM buffer.backjob WHERE backjob.backjob_id = inserted.backjob_id),
          nullif((
            SELECT count(*) FROM buffer.hold_freeze
            WHERE inserted.backjob_id IS NULL AND hold_freeze.hold_id = inserted.hold_id
              AND hold_freeze.backjob_id IS NULL AND hold_freeze.opened_at <= inserted.recorded_at
              AND coalesce(hold_freeze.closed_at = inserted.recorded_at, TRUE)
          ), 0)
        )
      ) IS NULL{of_an_earning}
      WHEN inserted.type = 'PENDING_EARNING' THEN (
        SELECT earned.hold_id FROM buffer.hold AS earned
        INNER JOIN buffer.job ON job.job = earned.job
        INNER JOIN buffer.wallet ON wallet.wallet_id = earned.payer_wallet_id AND wallet.owner = job.payer
        WHERE earned.hold_id = inserted.hold_id
      ) IS NULL{part}{claw_back}
      ELSE FALSE
    END
    UNION ALL
    SELECT of_batch.transaction_id
    FROM (SELECT batch_id, min(transaction_id) AS transaction_id FROM inserted GROUP BY batch_id) AS of_batch
    WHERE of_batch.batch_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM buffer.batch WHERE batch.batch_id = of_batch.batch_id)
  ) AS line;
  IF stray IS NOT NULL THEN
    RAISE EXCEPTION
{message}stray
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'transaction_references_what_is_there';
  END IF;
  RETURN NULL;
END
$$;
"""

# A refund that has neither a backjob nor a reference is of the same statement, batch and earning as one that
# has a reference. A releaser may write no reference, so it still writes no refund.
_REFUND_OF_AN_EARNING = """
      OR (inserted.backjob_id IS NULL AND inserted.reference IS NULL AND (
        SELECT min(first.transaction_id) FROM inserted AS first
        INNER JOIN buffer.batch ON batch.batch_id = first.batch_id
        WHERE first.batch_id = inserted.batch_id
          AND first.reference IS NOT NULL
          AND batch.earning_id = coalesce(hold.earning_id, hold.hold_id)
      ) IS NULL)"""

# An EARNING, which a release writes most, is told apart first. A part belongs to the early release that named
# its hold, or the first share of its earning. So who may not release early adds no part.
_EARNED = """
      WHEN inserted.type = 'EARNING' THEN FALSE"""
_PART = """
      WHEN inserted.type = 'EARNING_PART' THEN (
        SELECT batch.batch_id FROM buffer.batch
        WHERE batch.batch_id = inserted.batch_id AND batch.recorded_at = inserted.recorded_at
          AND batch.named_hold_id IN (
            inserted.hold_id,
            (SELECT given.earning_id FROM buffer.hold AS given WHERE given.hold_id = inserted.hold_id)
          )
      ) IS NULL"""

_OF_A_DEBT = """
      -- Of a debt: between its wallets, of a batch that may do it. Only who may open a debt may take money
      -- out of the books, or write it off. A releaser may only recover.
      WHEN inserted.debt_id IS NOT NULL THEN (
        SELECT debt.debt_id FROM buffer.debt
        INNER JOIN buffer.batch
          ON batch.batch_id = inserted.batch_id AND batch.recorded_at = inserted.recorded_at
        WHERE debt.debt_id = inserted.debt_id AND debt.currency = inserted.currency
          AND CASE inserted.type
            WHEN 'RECOVERY' THEN
              batch.kind IN ('DUE', 'EARLY', 'RECOVERY')
              AND debt.wallet_id = inserted.from_wallet_id
              AND debt.creditor_wallet_id IS NOT DISTINCT FROM inserted.to_wallet_id
            WHEN 'ADVANCE' THEN
              batch.batch_id = debt.clawback_id
              AND debt.hold_id = inserted.hold_id
              AND debt.creditor_wallet_id IS NOT DISTINCT FROM inserted.from_wallet_id
              AND inserted.to_wallet_id IS NOT DISTINCT FROM CASE batch.paid_to WHEN 'PAYER' THEN (
                SELECT owed.payer_wallet_id FROM buffer.hold AS owed WHERE owed.hold_id = inserted.hold_id
              ) END
              AND has_column_privilege('buffer.debt', 'amount_minor', 'INSERT')
            ELSE
              batch.kind = 'FORGIVEN'
              AND debt.creditor_wallet_id IS NOT DISTINCT FROM inserted.to_wallet_id
              AND has_column_privilege('buffer.debt', 'amount_minor', 'INSERT')
          END
      ) IS NULL"""
_CLAW_BACK = """
      -- Of a claw-back that named its hold or its earning; to its payer, or out of the books.
      WHEN inserted.type = 'CLAWBACK' THEN (
        SELECT batch.batch_id FROM buffer.batch
        WHERE batch.batch_id = inserted.batch_id AND batch.recorded_at = inserted.recorded_at
          AND batch.kind = 'CLAWBACK'
          AND batch.named_hold_id IN (hold.hold_id, hold.earning_id)
          AND inserted.to_wallet_id
          IS NOT DISTINCT FROM CASE batch.paid_to WHEN 'PAYER' THEN hold.payer_wallet_id END
          AND has_column_privilege('buffer.debt', 'amount_minor', 'INSERT')
      ) IS NULL"""

# A line of a payout is of its wallet, currency and amount, and of the state that the same statement has
# written. So a payout's money moves only with its state. A line of a hold, which a release writes most, is
# told apart by one comparison.
_OF_A_PAYOUT = """
      WHEN inserted.hold_id IS NULL AND inserted.payout_id IS NOT NULL THEN (
        SELECT payout.payout_id FROM buffer.payout
        WHERE payout.payout_id = inserted.payout_id
          AND payout.currency = inserted.currency
          AND payout.amount_minor = inserted.amount_minor
          AND payout.wallet_id = coalesce(inserted.from_wallet_id, inserted.to_wallet_id, payout.wallet_id)
          AND payout.state = CASE inserted.type
            WHEN 'PAYOUT' THEN 'REQUESTED'
            WHEN 'PAYOUT_PAID' THEN 'PAID'
            WHEN 'PAYOUT_RETURNED' THEN 'RETURNED'
            WHEN 'PAYOUT_CANCELLED' THEN 'CANCELLED'
          END
          AND (inserted.type <> 'PAYOUT_RETURNED'
            OR (inserted.from_account = 'TRANSIT') = (payout.paid_at IS NULL))
      ) IS NULL"""

_OLDER_MESSAGE = "      'transaction %: its hold, job, wallet, batch, freeze or backjob does not exist or does not match it', "
_MESSAGE = """      'transaction %: its hold, job, wallet, batch, debt, freeze or backjob does not exist or does not match',
      """


def replace_function(
    *, refunds_of_earnings: bool, parts: bool, debts: bool = False, payouts: bool = False
) -> None:
    """Accept refunds of several shares of an earning, parts that are released early, the lines of claw-backs and
    debts, and those of payouts, or none.
    """
    op.execute(
        _FUNCTION.format(
            of_an_earning=_REFUND_OF_AN_EARNING if refunds_of_earnings else "",
            earned=_EARNED if parts else "",
            part=_PART if parts else "",
            of_a_debt=_OF_A_DEBT if debts else "",
            claw_back=_CLAW_BACK if debts else "",
            of_a_payout=_OF_A_PAYOUT if payouts else "",
            message=_MESSAGE if debts else _OLDER_MESSAGE,
        )
    )
