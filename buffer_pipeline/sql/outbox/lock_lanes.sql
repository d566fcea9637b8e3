-- The owners, at most :owners_limit and after :after_owner, whose lanes at an endpoint this transaction may
-- claim: the first delivery is due, it is not leased, and no other transaction is claiming the lane. No owner
-- if the endpoint is paused, except to :probe it.
-- Goes from owner to owner by the index, so a long lane, or many deliveries that are not due, cost one step
-- per owner.
-- Locks each lane until the transaction ends; skips a locked one, so it never waits. This statement's
-- snapshot is older than its locks, so claim_deliveries checks again in a later statement.
WITH RECURSIVE lane (owner) AS (
  (
    SELECT delivery.owner
    FROM buffer.delivery
    WHERE
      delivery.state = 'WAITING'
      AND delivery.endpoint = :endpoint
      AND delivery.owner > :after_owner
      AND (
        CAST(:probe AS boolean)
        OR NOT EXISTS (
          SELECT FROM buffer.endpoint_pause
          WHERE endpoint_pause.endpoint = :endpoint
        )
      )
    ORDER BY delivery.owner
    LIMIT 1
  )
  UNION ALL
  SELECT
    (
      SELECT delivery.owner
      FROM buffer.delivery
      WHERE delivery.state = 'WAITING' AND delivery.endpoint = :endpoint AND delivery.owner > lane.owner
      ORDER BY delivery.owner
      LIMIT 1
    )
  FROM lane
  WHERE lane.owner IS NOT NULL
),
head AS MATERIALIZED (
  SELECT lane.owner
  FROM lane
  CROSS JOIN LATERAL (
    SELECT
      delivery.next_attempt_at,
      delivery.leased_until
    FROM buffer.delivery
    WHERE delivery.state = 'WAITING' AND delivery.endpoint = :endpoint AND delivery.owner = lane.owner
    ORDER BY delivery.owner, delivery.delivery_id
    LIMIT 1
  ) AS first
  -- A CASE, because only CASE guarantees the order of evaluation: a lane that is not due must not be locked.
  WHERE
    CASE
      WHEN first.next_attempt_at > CAST(:now AS timestamptz) THEN FALSE
      WHEN first.leased_until > CAST(:now AS timestamptz) THEN FALSE
      ELSE pg_try_advisory_xact_lock(hashtext('buffer.lane.' || :endpoint), hashtext(lane.owner))
    END
  -- No ORDER BY: it would visit every owner. The walk is in order anyway, and ends at the limit.
  LIMIT :owners_limit -- noqa: AM09
)

SELECT head.owner
FROM head
ORDER BY head.owner
