-- WAITING -> DELIVERED, DEAD, or WAITING for another attempt. The outcome UNSENT only gives back the lease.
-- Changes a delivery only if it still has the lease under which it was claimed. Never waits: if another
-- transaction has locked a row, it is claiming it anew, so the lease is lost.
WITH outcome AS (
  SELECT *
  FROM unnest(
    CAST(:delivery_ids AS bigint[]),
    CAST(:leases AS uuid[]),
    CAST(:outcomes AS text[]),
    CAST(:reasons AS text[]),
    CAST(:next_attempts_at AS timestamptz[])
  ) AS given (delivery_id, lease, outcome, reason, next_attempt_at)
),
locked AS MATERIALIZED (
  SELECT
    delivery.delivery_id,
    outcome.outcome,
    outcome.reason,
    outcome.next_attempt_at
  FROM outcome
  INNER JOIN buffer.delivery ON outcome.delivery_id = delivery.delivery_id
  WHERE delivery.state = 'WAITING' AND delivery.lease = outcome.lease
  FOR NO KEY UPDATE OF delivery SKIP LOCKED
),
attempted AS (
  UPDATE buffer.delivery
  SET
    state = CASE WHEN locked.outcome = 'RETRY' THEN 'WAITING' ELSE locked.outcome END,
    attempts = delivery.attempts + 1,
    first_attempt_at = coalesce(delivery.first_attempt_at, CAST(:now AS timestamptz)),
    next_attempt_at = coalesce(locked.next_attempt_at, delivery.next_attempt_at),
    settled_at = CASE WHEN locked.outcome <> 'RETRY' THEN CAST(:now AS timestamptz) END,
    reason = locked.reason,
    lease = NULL,
    leased_until = NULL
  FROM locked
  WHERE delivery.delivery_id = locked.delivery_id AND locked.outcome <> 'UNSENT'
  RETURNING delivery.delivery_id
),
unsent AS (
  UPDATE buffer.delivery
  SET
    lease = NULL,
    leased_until = NULL
  FROM locked
  WHERE delivery.delivery_id = locked.delivery_id AND locked.outcome = 'UNSENT'
  RETURNING delivery.delivery_id
)
SELECT attempted.delivery_id
FROM attempted
UNION ALL
SELECT unsent.delivery_id
FROM unsent
