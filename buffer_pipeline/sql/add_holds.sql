-- (nothing) -> BUFFERED for each incoming earning whose reference is new. buffer_holds.sql, which follows, moves the money.
-- Skips a reference that exists, or that another transaction commits first. Adds nothing where an owner has no wallet yet.
-- Lock order: references as they sort, then the payees' wallets by id. buffer_holds.sql is a statement of its own for the
-- reason given in lock_wallets.sql.
-- Returns the holds that were added, as two arrays (NULL when none was).
-- What has to wait for something else counts its rows and does not join them: the planner expects one or two incoming
-- rows, and would join thousands in a loop.
WITH
incoming AS MATERIALIZED (
  SELECT *
  FROM unnest(
    CAST(:references AS text[]), CAST(:jobs AS text[]), CAST(:titles AS text[]),
    CAST(:payees AS text[]), CAST(:payers AS text[]), CAST(:currencies AS text[]),
    CAST(:amounts_minor AS bigint[]), CAST(:held_ats AS timestamptz[]),
    CAST(:release_dates AS timestamptz[])
  ) AS earning (reference, job, title, payee, payer, currency, amount_minor, held_at, release_date)
),

known AS MATERIALIZED (
  SELECT
    incoming.*,
    payee.wallet_id AS payee_wallet_id,
    payer.wallet_id AS payer_wallet_id,
    count(*) OVER () AS known_count
  FROM incoming
  INNER JOIN buffer.wallet AS payee
    ON incoming.payee = payee.owner AND incoming.currency = payee.currency
  INNER JOIN buffer.wallet AS payer
    ON incoming.payer = payer.owner AND incoming.currency = payer.currency
),

added AS (
  INSERT INTO buffer.hold (
    reference, job, title, payee_wallet_id, payer_wallet_id,
    currency, amount_minor, held_at, original_release_date
  )
  SELECT
    reference,
    job,
    title,
    payee_wallet_id,
    payer_wallet_id,
    currency,
    amount_minor,
    held_at,
    release_date
  FROM known
  WHERE known_count = (SELECT count(*) FROM incoming)
  ORDER BY reference
  ON CONFLICT (reference) DO NOTHING
  RETURNING
    hold_id,
    reference,
    payee_wallet_id,
    currency,
    amount_minor,
    original_release_date AS release_date
),

waiting AS (
  INSERT INTO buffer.unsettled_hold (hold_id, payee_wallet_id, currency, amount_minor, release_date)
  SELECT
    hold_id,
    payee_wallet_id,
    currency,
    amount_minor,
    release_date
  FROM added
  -- In the order of release, so that a release finds its rows on few pages.
  ORDER BY release_date, hold_id
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id = any(ARRAY(SELECT payee_wallet_id FROM added))
  ORDER BY wallet_id
  FOR NO KEY UPDATE
)

SELECT
  pg_catalog.array_agg(hold_id) AS hold_ids,
  pg_catalog.array_agg(reference) AS "references",
  (SELECT count(*) FROM locked_wallet) AS wallets_locked
FROM added
