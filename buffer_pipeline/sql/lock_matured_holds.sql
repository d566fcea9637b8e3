-- Locks at most :batch_limit matured holds, the oldest release hour first, and within an
-- hour wallet by wallet. Passes over holds that another transaction has locked.
-- Starts behind (:after_hour, :after_wallet_id, :after_hold_id), so that a run reads each
-- index entry once, the dead ones of its earlier batches included.
-- Only of wallets behind :after_shard up to :through_shard: the index tells, before the row is read.
-- The ids come as the text of an array, as which the next statement takes them: nobody between reads them.
WITH
matured AS MATERIALIZED (
  SELECT
    release_hour,
    payee_wallet_id,
    hold_id
  FROM buffer.unsettled_hold
  WHERE
    state = 'BUFFERED'
    AND release_hour <= CAST(:due_by AS timestamptz)
    AND release_date <= CAST(:due_by AS timestamptz)
    AND (release_hour, payee_wallet_id, hold_id)
    > (CAST(:after_hour AS timestamptz), CAST(:after_wallet_id AS bigint), CAST(:after_hold_id AS bigint))
    AND payee_wallet_id > CAST(:after_shard AS bigint)
    AND payee_wallet_id <= CAST(:through_shard AS bigint)
  ORDER BY release_hour, payee_wallet_id, hold_id
  LIMIT CAST(:batch_limit AS bigint)
  FOR UPDATE SKIP LOCKED
),

latest AS (
  SELECT
    release_hour,
    payee_wallet_id,
    hold_id
  FROM matured
  ORDER BY release_hour DESC, payee_wallet_id DESC, hold_id DESC
  LIMIT 1
)

SELECT
  (SELECT CAST(array_agg(hold_id) AS text) FROM matured) AS hold_ids,
  (SELECT count(*) FROM matured) AS holds,
  release_hour AS last_hour,
  payee_wallet_id AS last_wallet_id,
  hold_id AS last_hold_id
FROM latest
