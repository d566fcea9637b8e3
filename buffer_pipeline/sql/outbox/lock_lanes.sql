-- The owners at most :owners_limit of whose lanes at an endpoint may be claimed by this transaction, behind
-- :after_owner: the first delivery is due, nobody has leased it, and no other transaction is claiming the
-- lane. Walks from owner to owner by the index, so that neither a long lane nor many deliveries that are
-- not due cost more than one step each. None of an endpoint that is left alone, but to :probe it.
-- Locks each lane until this transaction ends, and waits for none. A lock that was free says nothing about
-- what this statement saw: claim_deliveries looks again, behind the locks and at a later moment.
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
  -- A CASE, as nothing else keeps lanes from being locked that are not due.
  WHERE
    CASE
      WHEN first.next_attempt_at > CAST(:now AS timestamptz) THEN FALSE
      WHEN first.leased_until > CAST(:now AS timestamptz) THEN FALSE
      ELSE pg_try_advisory_xact_lock(hashtext('buffer.lane.' || :endpoint), hashtext(lane.owner))
    END
  -- No ORDER BY: it would walk over every owner, where the walk is in order anyway and ends here.
  LIMIT :owners_limit -- noqa: AM09
)

SELECT head.owner
FROM head
ORDER BY head.owner
