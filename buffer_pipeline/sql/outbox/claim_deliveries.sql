-- Leases the first waiting deliveries of at most :owners_limit owners behind :after_owner at an endpoint,
-- at most :per_owner_limit for each, in the order in which they are to be sent.
-- An owner whose first delivery is not due or is leased, or that another transaction is claiming, is
-- passed over whole: what comes first is delivered first. Walks from owner to owner by the index, so
-- that neither a long lane nor many deliveries that are not due cost more than one step each.
-- Locks each owner's first delivery, passing over locked ones; then those that follow it.
WITH RECURSIVE lane (owner) AS (
  (
    SELECT delivery.owner
    FROM buffer.delivery
    WHERE delivery.state = 'WAITING' AND delivery.endpoint = :endpoint AND delivery.owner > :after_owner
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
  SELECT first.delivery_id
  FROM lane
  CROSS JOIN LATERAL (
    SELECT
      delivery.delivery_id,
      delivery.next_attempt_at,
      delivery.leased_until
    FROM buffer.delivery
    WHERE delivery.state = 'WAITING' AND delivery.endpoint = :endpoint AND delivery.owner = lane.owner
    ORDER BY delivery.owner, delivery.delivery_id
    LIMIT 1
  ) AS first
  WHERE
    first.next_attempt_at <= CAST(:now AS timestamptz)
    AND (first.leased_until IS NULL OR first.leased_until <= CAST(:now AS timestamptz))
  -- No ORDER BY: it would walk over every owner, where the walk is in order anyway and ends here.
  LIMIT :owners_limit -- noqa: AM09
),
locked AS MATERIALIZED (
  SELECT
    delivery.delivery_id,
    delivery.owner
  FROM buffer.delivery
  -- Looked at again behind the lock: another claim may have had it since.
  WHERE
    delivery.delivery_id = any(ARRAY(SELECT head.delivery_id FROM head))
    AND delivery.state = 'WAITING'
    AND delivery.next_attempt_at <= CAST(:now AS timestamptz)
    AND (delivery.leased_until IS NULL OR delivery.leased_until <= CAST(:now AS timestamptz))
  ORDER BY delivery.delivery_id
  FOR NO KEY UPDATE SKIP LOCKED
),
chain AS MATERIALIZED (
  SELECT following.delivery_ids
  FROM locked
  CROSS JOIN LATERAL ( -- noqa: ST05
    SELECT
      array_agg(waiting.delivery_id) AS delivery_ids,
      bool_or(waiting.leased_until > CAST(:now AS timestamptz)) AS leased
    FROM (
      SELECT
        delivery.delivery_id,
        delivery.leased_until
      FROM buffer.delivery
      WHERE
        delivery.state = 'WAITING'
        AND delivery.endpoint = :endpoint
        AND delivery.owner = locked.owner
        AND delivery.delivery_id >= locked.delivery_id
      ORDER BY delivery.owner, delivery.delivery_id
      LIMIT :per_owner_limit
    ) AS waiting
  ) AS following
  -- Somebody sends the later ones: a first one that came back by replay waits for that.
  WHERE following.leased IS NOT TRUE
),
leased AS (
  UPDATE buffer.delivery
  SET
    lease = CAST(:lease AS uuid),
    leased_until = CAST(:now AS timestamptz) + CAST(:lease_seconds AS double precision) * interval '1 second'
  WHERE
    delivery.delivery_id = any(
      ARRAY(SELECT unnest(chain.delivery_ids) FROM chain)
    )
    AND delivery.state = 'WAITING'
  RETURNING delivery.delivery_id, delivery.notification_id, delivery.attempts, delivery.first_attempt_at
)
SELECT
  leased.delivery_id,
  leased.attempts,
  leased.first_attempt_at,
  notification.notification_id,
  notification.type,
  notification.owner,
  -- A backjob's payer is the payer of what it froze: whoever asked for it may be somebody else.
  CASE
    WHEN notification.hold_id IS NOT NULL THEN notification.owner = payer.owner
    ELSE EXISTS (
      SELECT FROM buffer.hold_freeze
      INNER JOIN buffer.hold AS frozen ON hold_freeze.hold_id = frozen.hold_id
      INNER JOIN buffer.wallet AS its_payer ON frozen.payer_wallet_id = its_payer.wallet_id
      WHERE hold_freeze.backjob_id = notification.backjob_id AND its_payer.owner = notification.owner
    )
  END AS to_payer,
  notification.hold_id,
  notification.backjob_id,
  notification.currency,
  notification.amount_minor,
  notification.release_date,
  notification.created_at,
  coalesce(hold.job, backjob.job) AS job,
  -- Of a backjob: the work that it froze.
  coalesce(hold.title, (
    SELECT frozen.title
    FROM buffer.hold_freeze
    INNER JOIN buffer.hold AS frozen ON hold_freeze.hold_id = frozen.hold_id
    WHERE hold_freeze.backjob_id = notification.backjob_id
    ORDER BY frozen.hold_id
    LIMIT 1
  )) AS title
FROM leased
INNER JOIN buffer.notification ON leased.notification_id = notification.notification_id
LEFT JOIN buffer.hold ON notification.hold_id = hold.hold_id
LEFT JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
LEFT JOIN buffer.backjob ON notification.backjob_id = backjob.backjob_id
ORDER BY notification.owner, leased.delivery_id
