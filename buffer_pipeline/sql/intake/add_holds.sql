-- (nothing) -> BUFFERED for each incoming earning whose reference is new. The next statement,
-- intake/buffer_holds.sql, moves the money.
-- Skips a reference that exists, or that another transaction commits first. Adds nothing at all if an owner
-- has no wallet yet.
-- If :have_shares, intake/add_shares.sql comes next, and locks the wallets of all shares.
-- Lock order: references in sort order, then the payees' wallets by id. intake/buffer_holds.sql is a separate
-- statement for the reason given in locks/lock_wallets.sql.
-- Returns the holds that were added, as two arrays (NULL if there are none).
-- A part that must wait for another part counts the other's rows and does not join them: the planner expects
-- one or two incoming rows, and would join thousands in a nested loop.
WITH
incoming AS MATERIALIZED (
  SELECT *
  FROM unnest(
    CAST(:references AS text[]), CAST(:jobs AS text[]), CAST(:titles AS text[]),
    CAST(:payees AS text[]), CAST(:payers AS text[]), CAST(:currencies AS text[]),
    CAST(:amounts_minor AS bigint[]), CAST(:held_ats AS timestamptz[]),
    CAST(:release_dates AS timestamptz[]), CAST(:earnings_minor AS bigint[]), CAST(:metadata AS text[]),
    CAST(:rule_ids AS bigint[])
  ) AS earning (
    reference, job, title, payee, payer, currency, amount_minor, held_at, release_date, earning_minor, metadata,
    rule_id
  )
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
    currency, amount_minor, held_at, original_release_date, earning_minor, metadata, rule_id
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
    release_date,
    -- An earning without other shares is its payee's alone.
    nullif(earning_minor, amount_minor),
    CAST(nullif(metadata, '') AS jsonb),
    nullif(rule_id, 0)
  FROM known
  WHERE known_count = (SELECT count(*) FROM incoming)
  ORDER BY reference
  ON CONFLICT (reference) WHERE earning_id IS NULL DO NOTHING
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
  -- Inserted in the order of release, so that a release finds its rows on few pages.
  ORDER BY release_date, hold_id
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE NOT CAST(:have_shares AS boolean) AND wallet_id = any(ARRAY(SELECT payee_wallet_id FROM added))
  ORDER BY wallet_id
  FOR NO KEY UPDATE
)

SELECT
  pg_catalog.array_agg(hold_id) AS hold_ids,
  pg_catalog.array_agg(reference) AS "references",
  (SELECT count(*) FROM locked_wallet) AS wallets_locked
FROM added
