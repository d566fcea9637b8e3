-- Leases the first waiting deliveries of :owners at an endpoint, at most :per_owner_limit for each, in the
-- order in which they are to be sent. Run behind lock_lanes, which locked the lanes of these owners: what
-- another transaction leased before is seen here, as this statement begins after its lock was let go.
-- An owner whose first delivery is not due, or of whom anything at all is leased (later ones may be, when
-- the first came back by replay), is passed over whole: what comes first is delivered first, and by one.
-- Locks each owner's first delivery, passing over one that is being settled; then those that follow it.
WITH head AS MATERIALIZED (
  SELECT first.delivery_id
  FROM unnest(CAST(:owners AS text [])) AS lane (owner)
  CROSS JOIN LATERAL ( -- noqa: ST05
    SELECT delivery.delivery_id
    FROM buffer.delivery
    WHERE delivery.state = 'WAITING' AND delivery.endpoint = :endpoint AND delivery.owner = lane.owner
    ORDER BY delivery.owner, delivery.delivery_id
    LIMIT 1
  ) AS first
  WHERE NOT EXISTS (
    SELECT FROM buffer.delivery
    WHERE
      delivery.state = 'WAITING'
      AND delivery.endpoint = :endpoint
      AND delivery.owner = lane.owner
      AND delivery.leased_until > CAST(:now AS timestamptz)
  )
),
locked AS MATERIALIZED (
  SELECT
    delivery.delivery_id,
    delivery.owner
  FROM buffer.delivery
  WHERE
    delivery.delivery_id = any(ARRAY(SELECT head.delivery_id FROM head))
    AND delivery.state = 'WAITING'
    AND delivery.next_attempt_at <= CAST(:now AS timestamptz)
  ORDER BY delivery.delivery_id
  FOR NO KEY UPDATE SKIP LOCKED
),
chain AS MATERIALIZED (
  SELECT following.delivery_id
  FROM locked
  CROSS JOIN LATERAL (
    SELECT delivery.delivery_id
    FROM buffer.delivery
    WHERE
      delivery.state = 'WAITING'
      AND delivery.endpoint = :endpoint
      AND delivery.owner = locked.owner
      AND delivery.delivery_id >= locked.delivery_id
    ORDER BY delivery.owner, delivery.delivery_id
    LIMIT :per_owner_limit
  ) AS following
),
leased AS (
  UPDATE buffer.delivery
  SET
    lease = CAST(:lease AS uuid),
    leased_until = CAST(:now AS timestamptz) + CAST(:lease_seconds AS double precision) * interval '1 second'
  WHERE
    delivery.delivery_id = any(ARRAY(SELECT chain.delivery_id FROM chain))
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
  currency.places,
  notification.release_date,
  notification.created_at,
  coalesce(hold.job, backjob.job) AS job,
  -- Of a backjob: the owner's own work that it froze, as payee or payer, and nobody else's.
  coalesce(hold.title, (
    SELECT frozen.title
    FROM buffer.hold_freeze
    INNER JOIN buffer.hold AS frozen ON hold_freeze.hold_id = frozen.hold_id
    INNER JOIN buffer.wallet AS side
      ON side.wallet_id IN (frozen.payee_wallet_id, frozen.payer_wallet_id)
    WHERE hold_freeze.backjob_id = notification.backjob_id AND side.owner = notification.owner
    ORDER BY frozen.hold_id
    LIMIT 1
  )) AS title
FROM leased
INNER JOIN buffer.notification ON leased.notification_id = notification.notification_id
LEFT JOIN buffer.hold ON notification.hold_id = hold.hold_id
LEFT JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
LEFT JOIN buffer.currency ON notification.currency = currency.currency
LEFT JOIN buffer.backjob ON notification.backjob_id = backjob.backjob_id
ORDER BY notification.owner, leased.delivery_id
