-- Locks at most :batch_limit matured holds, the oldest release hour first, and within an
-- hour wallet by wallet. Passes over holds that another transaction has locked.
-- Starts behind (:after_hour, :after_wallet_id, :after_hold_id), so that a run reads each
-- index entry once, the dead ones of its earlier batches included.
-- Only wallets of shard :shard of :shards, one of which is all. That is asked for in a CASE: the
-- planner takes it for half of the holds, where an equation of its own would be one in 200, which
-- is worth a sort of everything that is due.
WITH
matured AS MATERIALIZED (
  SELECT
    release_hour,
    payee_wallet_id,
    hold_id
  FROM buffer.hold
  WHERE
    state = 'BUFFERED'
    AND release_hour <= CAST(:due_by AS timestamptz)
    AND release_date <= CAST(:due_by AS timestamptz)
    AND (release_hour, payee_wallet_id, hold_id)
    > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
    AND (
      CAST(:shards AS integer) = 1
      OR CASE
        WHEN mod(payee_wallet_id, CAST(:shards AS bigint)) = CAST(:shard AS bigint) THEN true ELSE false
      END
    )
  ORDER BY release_hour, payee_wallet_id, hold_id
  LIMIT CAST(:batch_limit AS bigint)
  FOR NO KEY UPDATE SKIP LOCKED
)

SELECT
  array_agg(hold_id) AS hold_ids,
  (array_agg(release_hour ORDER BY release_hour DESC, payee_wallet_id DESC, hold_id DESC))[1]
    AS last_hour,
  (array_agg(payee_wallet_id ORDER BY release_hour DESC, payee_wallet_id DESC, hold_id DESC))[1]
    AS last_wallet_id,
  (array_agg(hold_id ORDER BY release_hour DESC, payee_wallet_id DESC, hold_id DESC))[1]
    AS last_hold_id
FROM matured
HAVING count(*) > 0
