-- Locks the holds that wait for the owner without waiting for a lock. The caller has locked the owner's
-- wallets, and before that the holds that there were then. So only a hold that was added in between can be
-- locked by another transaction. Such a hold is skipped.
-- Returns how many holds wait for the owner, and how many of them are locked now.
WITH
waiting AS MATERIALIZED (
  SELECT buffer.waiting_holds(CAST(:owner AS text)) AS hold_id
),

locked AS MATERIALIZED (
  SELECT hold_id
  FROM buffer.unsettled_hold
  WHERE hold_id = any(ARRAY(SELECT hold_id FROM waiting))
  FOR NO KEY UPDATE SKIP LOCKED
)

SELECT
  (SELECT count(*) FROM waiting) AS holds,
  (SELECT count(*) FROM locked) AS locked
