-- A batch that is not cancelled has as many payouts, of as much in all, as it says, in the state that its own one
-- says, each to a destination of its method and of its owner; a cancelled one has none. Where four eyes were
-- required, somebody else than its maker approved it.
WITH
held AS (
  SELECT
    payout.payout_batch_id,
    count(*) AS payouts,
    sum(payout.amount_minor) AS amount_minor,
    count(*) FILTER (WHERE payout.state = 'BATCHED') AS batched,
    count(*) FILTER (
      WHERE (destination.owner, destination.method) IS DISTINCT FROM (wallet.owner, payout_batch.method)
    ) AS elsewhere
  FROM buffer.payout
  INNER JOIN buffer.payout_batch ON payout.payout_batch_id = payout_batch.payout_batch_id
  LEFT JOIN buffer.wallet ON payout.wallet_id = wallet.wallet_id
  LEFT JOIN buffer.payout_destination AS destination ON payout.destination_id = destination.destination_id
  GROUP BY payout.payout_batch_id
)

SELECT
  payout_batch.payout_batch_id,
  payout_batch.state,
  payout_batch.currency,
  payout_batch.payouts,
  coalesce(held.payouts, 0) AS payouts_held,
  payout_batch.amount_minor,
  coalesce(held.amount_minor, 0) AS held_minor,
  coalesce(held.elsewhere, 0) AS elsewhere,
  payout_batch.made_by,
  payout_batch.approved_by
FROM buffer.payout_batch
LEFT JOIN held ON payout_batch.payout_batch_id = held.payout_batch_id
WHERE
  CASE
    WHEN payout_batch.state = 'CANCELLED' THEN held.payouts IS NOT NULL
    ELSE
      (payout_batch.payouts, payout_batch.amount_minor) IS DISTINCT FROM (held.payouts, held.amount_minor)
      OR held.batched <> CASE payout_batch.state WHEN 'SENT' THEN 0 ELSE held.payouts END
      OR held.elsewhere > 0
  END
  OR (payout_batch.four_eyes AND payout_batch.approved_by = payout_batch.made_by)
ORDER BY payout_batch.payout_batch_id
