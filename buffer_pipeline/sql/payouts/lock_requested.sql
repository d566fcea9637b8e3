-- Locks, by id, the REQUESTED payouts of a currency that a batch can take, and returns them by method: of owners
-- who are not frozen, owe nothing in any currency, and whose destination was set at or before :set_by_now. An
-- admin's override passes what there was when the payout was requested: no later destination, freeze or debt.
-- Passes over payouts that another transaction has locked: one that is being cancelled, or put in a batch.
WITH
locked AS MATERIALIZED (
  SELECT
    payout.payout_id,
    payout.amount_minor,
    destination.destination_id,
    destination.method
  FROM buffer.payout
  INNER JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
  CROSS JOIN LATERAL (
    SELECT
      newest.destination_id,
      newest.method,
      newest.set_at
    FROM buffer.payout_destination AS newest
    WHERE newest.owner = wallet.owner
    ORDER BY newest.version DESC
    LIMIT 1
  ) AS destination
  WHERE
    payout.state = 'REQUESTED'
    AND payout.currency = :currency
    AND (CAST(:method AS text) IS NULL OR destination.method = CAST(:method AS text))
    AND (
      (
        payout.override_reason IS NOT NULL
        AND destination.set_at <= payout.requested_at
        AND coalesce((
          SELECT owner_freeze.opened_at
          FROM buffer.owner_freeze
          WHERE owner_freeze.owner_freeze_id = wallet.owner_freeze_id
        ) <= payout.requested_at, TRUE)
        AND coalesce((
          SELECT max(debt.opened_at)
          FROM buffer.wallet AS other
          INNER JOIN buffer.debt ON other.wallet_id = debt.wallet_id
          WHERE other.owner = wallet.owner AND debt.outstanding_minor > 0
        ) <= payout.requested_at, TRUE)
      )
      OR (
        wallet.owner_freeze_id IS NULL
        AND (
          SELECT max(other.debt_minor)
          FROM buffer.wallet AS other
          WHERE other.owner = wallet.owner
        ) = 0
        AND destination.set_at <= CAST(:set_by_now AS timestamptz)
      )
    )
  ORDER BY payout.payout_id
  FOR NO KEY UPDATE OF payout SKIP LOCKED
)

SELECT
  method,
  count(*) AS payouts,
  CAST(sum(amount_minor) AS bigint) AS amount_minor,
  array_agg(payout_id ORDER BY payout_id) AS payout_ids,
  array_agg(destination_id ORDER BY payout_id) AS destination_ids
FROM locked
GROUP BY method
ORDER BY method
