-- The hold :hold_id, or the first share of the earning with :reference, and if it is a first share the others; by id.
-- Reads only.
SELECT
  hold_status.hold_id,
  hold_status.earning_id,
  hold_status.state,
  hold_status.kind,
  hold_status.rule_id,
  hold_status.currency,
  hold_status.amount_minor - hold_status.released_minor - hold_status.refunded_minor AS held_minor,
  hold_status.payee_wallet_id,
  hold_status.payer_wallet_id
FROM buffer.hold_status
WHERE
  hold_status.hold_id = any(ARRAY(
    SELECT hold.hold_id
    FROM buffer.hold
    WHERE
      hold.hold_id = CAST(:hold_id AS bigint)
      OR hold.earning_id = CAST(:hold_id AS bigint)
    UNION
    SELECT share.hold_id
    FROM buffer.hold AS first
    INNER JOIN buffer.hold AS share ON first.hold_id IN (share.hold_id, share.earning_id)
    WHERE first.reference = CAST(:reference AS text) AND first.earning_id IS NULL
  ))
ORDER BY hold_status.hold_id
