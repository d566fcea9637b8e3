-- (nothing) -> BUFFERED for the other shares of earnings whose first shares this transaction has just added
-- (:first_ids). Then locks the wallets of all shares, by id, for intake/buffer_holds.sql. A share has the first
-- one's reference, job, title, payer, currency, beginning and rule.
-- Every owner has a wallet (wallet/ensure_wallets.sql).
-- Returns the shares that were added, as arrays; "number" is the place in the given arrays.
WITH
incoming AS MATERIALIZED (
  SELECT *
  FROM unnest(
    CAST(:first_ids AS bigint[]), CAST(:kinds AS text[]), CAST(:owners AS text[]),
    CAST(:amounts_minor AS bigint[]), CAST(:release_dates AS timestamptz[])
  ) WITH ORDINALITY AS share (first_id, kind, owner, amount_minor, release_date, number)
),

added AS (
  INSERT INTO buffer.hold (
    reference, job, title, payee_wallet_id, payer_wallet_id,
    currency, amount_minor, held_at, original_release_date, kind, earning_id, rule_id
  )
  SELECT
    first.reference,
    first.job,
    first.title,
    -- By subqueries for a value: each wallet is looked up by index, whatever the planner expects.
    (
      SELECT wallet.wallet_id
      FROM buffer.wallet
      WHERE wallet.owner = incoming.owner AND wallet.currency = first.currency
    ),
    first.payer_wallet_id,
    first.currency,
    incoming.amount_minor,
    first.held_at,
    incoming.release_date,
    incoming.kind,
    first.hold_id,
    first.rule_id
  FROM incoming
  CROSS JOIN LATERAL (
    SELECT hold.*
    FROM buffer.hold
    WHERE hold.hold_id = incoming.first_id
    ORDER BY hold.hold_id
    LIMIT 1
  ) AS first
  ORDER BY incoming.number
  RETURNING hold_id, kind, payee_wallet_id, currency, amount_minor, original_release_date AS release_date
),

waiting AS (
  INSERT INTO buffer.unsettled_hold (hold_id, kind, payee_wallet_id, currency, amount_minor, release_date)
  SELECT
    hold_id,
    kind,
    payee_wallet_id,
    currency,
    amount_minor,
    release_date
  FROM added
  ORDER BY release_date, hold_id
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE
    wallet_id = any(ARRAY(
      SELECT payee_wallet_id FROM added
      UNION
      SELECT payee_wallet_id FROM buffer.hold
      WHERE hold_id = any(CAST(:all_first_ids AS bigint[]))
    ))
  ORDER BY wallet_id
  FOR NO KEY UPDATE
)

SELECT
  pg_catalog.array_agg(hold_id ORDER BY hold_id) AS hold_ids,
  (SELECT count(*) FROM locked_wallet) AS wallets_locked
FROM added
