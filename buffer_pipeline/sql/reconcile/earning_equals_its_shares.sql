-- The shares of an earning add up to it and are of one payment, and each waits as the kind of share that it is.
WITH
others AS (
  SELECT
    earning_id,
    sum(amount_minor) AS amount_minor
  FROM buffer.hold
  WHERE earning_id IS NOT NULL
  GROUP BY earning_id
),

-- First shares that say what the whole earning is.
divided AS (
  SELECT
    hold_id,
    amount_minor,
    earning_minor
  FROM buffer.hold
  WHERE earning_minor IS NOT NULL
),

wrong AS (
  SELECT
    coalesce(divided.hold_id, others.earning_id) AS hold_id,
    coalesce(divided.amount_minor, 0) + coalesce(others.amount_minor, 0) AS shares_minor,
    NULL AS waits_as
  FROM divided
  FULL JOIN others ON divided.hold_id = others.earning_id
  WHERE
    divided.hold_id IS NULL
    OR others.earning_id IS NULL
    OR divided.amount_minor + others.amount_minor <> divided.earning_minor
  UNION ALL
  SELECT
    share.hold_id,
    NULL,
    NULL
  FROM buffer.hold AS share
  INNER JOIN buffer.hold AS first ON share.earning_id = first.hold_id
  WHERE
    share.reference <> first.reference
    OR share.job <> first.job
    OR share.title <> first.title
    OR share.payer_wallet_id <> first.payer_wallet_id
    OR share.currency <> first.currency
    OR share.held_at <> first.held_at
  UNION ALL
  SELECT
    unsettled_hold.hold_id,
    NULL,
    unsettled_hold.kind
  FROM buffer.unsettled_hold
  INNER JOIN buffer.hold ON unsettled_hold.hold_id = hold.hold_id
  WHERE unsettled_hold.kind <> hold.kind
)

SELECT
  hold.hold_id,
  hold.reference,
  hold.earning_id,
  hold.currency,
  hold.kind,
  wrong.waits_as,
  hold.earning_minor,
  wrong.shares_minor
FROM wrong
INNER JOIN buffer.hold ON wrong.hold_id = hold.hold_id
ORDER BY hold.hold_id
