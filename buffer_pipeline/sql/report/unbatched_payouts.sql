-- The payouts that were requested at or before :requested_by and that no batch has taken, the longest first, with `why`,
-- by the conditions of lock_requested.sql: FROZEN, INDEBTED, NEW_DESTINATION (set after :set_by_now), or NOT_MADE if
-- nothing but a batch is missing. Reads the payouts that are REQUESTED, by their index.
SELECT
  payout.payout_id,
  wallet.owner,
  payout.currency,
  destination.method,
  payout.amount_minor,
  payout.requested_at AS since,
  CASE
    WHEN
      payout.override_reason IS NOT NULL
      AND greatest(destination.set_at, frozen.opened_at, owed.opened_at) <= payout.requested_at
      THEN 'NOT_MADE'
    WHEN frozen.opened_at IS NOT NULL THEN 'FROZEN'
    WHEN owed.opened_at IS NOT NULL THEN 'INDEBTED'
    WHEN destination.set_at > CAST(:set_by_now AS timestamptz) THEN 'NEW_DESTINATION'
    ELSE 'NOT_MADE'
  END AS why
FROM buffer.payout
INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
CROSS JOIN LATERAL (
  SELECT
    newest.method,
    newest.set_at
  FROM buffer.payout_destination AS newest
  WHERE newest.owner = wallet.owner
  ORDER BY newest.version DESC
  LIMIT 1
) AS destination
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
WHERE payout.state = 'REQUESTED' AND payout.requested_at <= CAST(:requested_by AS timestamptz)
ORDER BY payout.requested_at, payout.payout_id
