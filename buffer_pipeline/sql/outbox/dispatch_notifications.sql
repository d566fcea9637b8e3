-- Writes the deliveries of at most :batch_limit notifications that have none yet, the oldest first: one for
-- each endpoint that takes their type (no types means all). An endpoint that needs an address gets one only
-- if the owner has an address.
-- A notification counts as dispatched even if no endpoint takes it. A new endpoint gets what is dispatched
-- after it was configured.
WITH endpoint AS (
  SELECT
    given.name,
    given.needs_address,
    -- The types of an endpoint are one text, because an array cannot contain arrays of different lengths.
    string_to_array(given.types, ',') AS types
  FROM unnest(
    CAST(:endpoints AS text[]), CAST(:types AS text[]), CAST(:needs_address AS boolean[])
  ) AS given (name, types, needs_address)
),
undispatched AS MATERIALIZED (
  SELECT
    notification_id,
    type,
    owner,
    created_at
  FROM buffer.notification
  WHERE dispatched_at IS NULL
  ORDER BY notification_id
  LIMIT :batch_limit
  FOR NO KEY UPDATE
),
dispatched AS (
  UPDATE buffer.notification
  SET dispatched_at = CAST(:now AS timestamptz)
  WHERE notification_id IN (SELECT notification_id FROM undispatched)
  RETURNING notification_id
),
written AS (
  INSERT INTO buffer.delivery (notification_id, endpoint, owner, created_at, next_attempt_at)
  SELECT
    undispatched.notification_id,
    endpoint.name,
    undispatched.owner,
    undispatched.created_at,
    undispatched.created_at
  FROM undispatched
  INNER JOIN endpoint ON endpoint.types IS NULL OR undispatched.type = any(endpoint.types)
  WHERE NOT endpoint.needs_address OR EXISTS (
    SELECT FROM buffer.contact
    WHERE contact.owner = undispatched.owner AND contact.email IS NOT NULL
  )
  ORDER BY undispatched.notification_id
  RETURNING delivery_id
)
SELECT
  (SELECT count(*) FROM dispatched) AS notifications,
  (SELECT count(*) FROM written) AS deliveries
