-- WAITING -> DELIVERED, DEAD, or WAITING for another attempt; UNSENT gives back a lease unused.
-- Only where the lease is still the one that the delivery was claimed under. Waits for nobody: a row
-- that another transaction has locked is being claimed anew, so its lease was lost.
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
