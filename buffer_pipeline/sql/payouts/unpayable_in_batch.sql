-- The first ten payouts of a batch whose owner is frozen, owes a debt or has another account by now than the
-- batch has. An admin's override passes a freeze and a debt that there were when the payout was requested. Reads only.
SELECT
  payout.payout_id,
  wallet.owner,
  CASE
    WHEN frozen.opened_at > passed.by_time THEN 'FROZEN'
    WHEN owed.opened_at > passed.by_time THEN 'INDEBTED'
    ELSE 'DESTINATION_CHANGED'
  END AS why
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
INNER JOIN buffer.payout_destination AS pinned ON payout.destination_id = pinned.destination_id
CROSS JOIN LATERAL ( -- noqa: ST05
  SELECT
    CASE WHEN payout.override_reason IS NULL THEN timestamptz '-infinity' ELSE payout.requested_at END AS by_time
) AS passed
CROSS JOIN LATERAL (
  SELECT max(owner_freeze.opened_at) AS opened_at
  FROM buffer.owner_freeze
  WHERE owner_freeze.owner_freeze_id = wallet.owner_freeze_id
) AS frozen
CROSS JOIN LATERAL (
  SELECT max(debt.opened_at) AS opened_at
  FROM buffer.wallet AS other
  INNER JOIN buffer.debt ON other.wallet_id = debt.wallet_id
  WHERE other.owner = wallet.owner AND other.debt_minor > 0 AND debt.outstanding_minor > 0
) AS owed
CROSS JOIN LATERAL (
  SELECT
    destination.method,
    destination.account
  FROM buffer.payout_destination AS destination
  WHERE destination.owner = wallet.owner
  ORDER BY destination.version DESC
  LIMIT 1
) AS newest
WHERE
  payout.payout_batch_id = CAST(:payout_batch_id AS bigint)
  AND (
    greatest(frozen.opened_at, owed.opened_at) > passed.by_time
    OR pinned.method <> newest.method
    OR pinned.account <> newest.account
  )
ORDER BY payout.payout_id
LIMIT 10
