-- Locks, in the order of their ids, the holds that wait for the owner.
WITH
locked AS MATERIALIZED (
  SELECT hold_id
  FROM buffer.unsettled_hold
  WHERE hold_id = any(ARRAY(SELECT buffer.waiting_holds(CAST(:owner AS text))))
  ORDER BY hold_id
  FOR NO KEY UPDATE
)

SELECT count(*) AS holds FROM locked
