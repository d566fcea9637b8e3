-- Leases the first waiting deliveries of :owners at an endpoint, at most :per_owner_limit per owner, in the
-- order in which they are to be sent.
-- Runs after lock_lanes, which locked the lanes of these owners. This statement begins after those locks, so
-- it sees what another transaction leased before it released them.
-- An owner is skipped if their first delivery is not due, or if any of their deliveries is leased (a later
-- one may be, if the first came back by replay). So deliveries are sent in order and by one drainer at a
-- time.
-- Lock order: each owner's first delivery by id, skipping one that is being settled; then the deliveries
-- after it.
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
  -- The payer of a backjob is the payer of the holds that it froze; somebody else may have requested it.
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
  notification.left_minor,
  -- Why it was taken back.
  (
    SELECT batch.reason FROM buffer.batch
    WHERE batch.batch_id = notification.clawback_id
  ) AS reason,
  -- What the payee is told of the freeze that this is about: it was opened at the same time.
  CASE WHEN notification.type = 'PAYMENT_FROZEN' AND notification.backjob_id IS NULL THEN (
    SELECT coalesce(hold_freeze.payee_text, owner_freeze.payee_text)
    FROM buffer.hold_freeze
    LEFT JOIN buffer.owner_freeze ON hold_freeze.owner_freeze_id = owner_freeze.owner_freeze_id
    WHERE
      hold_freeze.hold_id = notification.hold_id
      AND hold_freeze.kind <> 'BACKJOB'
      AND hold_freeze.opened_at = notification.created_at
    ORDER BY hold_freeze.freeze_id
    LIMIT 1
  ) END AS payee_text,
  notification.created_at,
  notification.payout_id,
  payout.return_reason AS payout_reason,
  payout_destination.masked AS payout_account,
  coalesce(hold.job, backjob.job, '') AS job,
  -- For a backjob: the title of a frozen hold in which the owner is payee or payer, never of another hold.
  coalesce(hold.title, (
    SELECT frozen.title
    FROM buffer.hold_freeze
    INNER JOIN buffer.hold AS frozen ON hold_freeze.hold_id = frozen.hold_id
    INNER JOIN buffer.wallet AS side
      ON side.wallet_id IN (frozen.payee_wallet_id, frozen.payer_wallet_id)
    WHERE hold_freeze.backjob_id = notification.backjob_id AND side.owner = notification.owner
    ORDER BY frozen.hold_id
    LIMIT 1
  )) AS title,
  -- The metadata of an earning is on its first hold.
  CAST(coalesce(hold.metadata, first.metadata) AS text) AS metadata,
  hold.kind,
  CASE WHEN hold.earning_minor IS NOT NULL THEN hold.hold_id ELSE hold.earning_id END AS earning_id,
  -- The earning and its shares are told to its payee, in messages about their own share or their reserve.
  CASE
    WHEN notification.owner <> payer.owner AND (hold.earning_minor IS NOT NULL OR hold.kind = 'RESERVE')
      THEN coalesce(hold.earning_minor, first.earning_minor)
  END AS earning_minor,
  CASE
    WHEN notification.owner <> payer.owner AND (hold.earning_minor IS NOT NULL OR hold.kind = 'RESERVE')
      THEN (
        SELECT
          CAST(pg_catalog.json_agg(pg_catalog.json_build_object(
            'hold_id', share.hold_id,
            'kind', share.kind,
            'owner', its_payee.owner,
            'amount_minor', share.amount_minor,
            'release_date', share.original_release_date,
            'left_minor', unsettled_hold.amount_minor,
            'due_at', CASE WHEN unsettled_hold.state = 'BUFFERED' THEN unsettled_hold.release_date END
          ) ORDER BY share.hold_id) AS text)
        FROM (
          SELECT coalesce(hold.earning_id, hold.hold_id) AS hold_id
          UNION ALL
          SELECT other.hold_id
          FROM buffer.hold AS other
          WHERE other.earning_id = coalesce(hold.earning_id, hold.hold_id)
        ) AS part
        INNER JOIN buffer.hold AS share ON part.hold_id = share.hold_id
        INNER JOIN buffer.wallet AS its_payee ON share.payee_wallet_id = its_payee.wallet_id
        LEFT JOIN buffer.unsettled_hold ON share.hold_id = unsettled_hold.hold_id
      )
  END AS shares
FROM leased
INNER JOIN buffer.notification ON leased.notification_id = notification.notification_id
LEFT JOIN buffer.hold ON notification.hold_id = hold.hold_id
-- Looked up for each share. An earning without shares has no earning_id, so nothing is read for it.
LEFT JOIN LATERAL (
  SELECT
    earning.earning_minor,
    earning.metadata
  FROM buffer.hold AS earning
  WHERE earning.hold_id = hold.earning_id
  ORDER BY earning.hold_id
  LIMIT 1
) AS first ON TRUE
LEFT JOIN buffer.wallet AS payer ON hold.payer_wallet_id = payer.wallet_id
LEFT JOIN buffer.currency ON notification.currency = currency.currency
LEFT JOIN buffer.backjob ON notification.backjob_id = backjob.backjob_id
LEFT JOIN buffer.payout ON notification.payout_id = payout.payout_id
LEFT JOIN buffer.payout_destination ON payout.destination_id = payout_destination.destination_id
ORDER BY notification.owner, leased.delivery_id
