-- (nothing) -> BUFFERED for each incoming earning whose reference is new.
-- A reference that stands already, or that another transaction commits first, is passed over.
-- Adds nothing where an owner has no wallet yet: wallets are locked once, all that are wanted, by id.
-- Returns the holds that were added, as two arrays (NULL when none was).
-- What has to wait for something else counts its rows and does not join them: the planner takes
-- the incoming rows for one or two, and would join thousands in a loop. Wallets are locked before
-- a transaction takes its id, so that ids are in the order of each wallet's history.
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
  ORDER BY release_date, reference
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
  ORDER BY hold_id
),

wallet_total AS MATERIALIZED (
  SELECT
    payee_wallet_id AS wallet_id,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM added
  GROUP BY payee_wallet_id
),

locked_wallet AS MATERIALIZED (
  SELECT wallet_id
  FROM buffer.wallet
  WHERE wallet_id IN (SELECT wallet_id FROM wallet_total)
  ORDER BY wallet_id
  FOR NO KEY UPDATE
),

buffered_wallet AS (
  UPDATE buffer.wallet
  SET pending_earnings_minor = wallet.pending_earnings_minor + wallet_total.amount_minor
  FROM wallet_total
  WHERE wallet.wallet_id = wallet_total.wallet_id AND (SELECT count(*) FROM locked_wallet) > 0
  RETURNING wallet.wallet_id
),

pending AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, to_wallet_id, currency, amount_minor, hold_id, recorded_at
  )
  SELECT
    'PENDING_EARNING',
    'ESCROW',
    'PENDING_EARNINGS',
    added.payee_wallet_id,
    added.currency,
    added.amount_minor,
    added.hold_id,
    CAST(:now AS timestamptz)
  FROM added
  WHERE (SELECT count(*) FROM buffered_wallet) > 0
  ORDER BY added.hold_id
),

told AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_PENDING',
    payee.owner,
    added.hold_id,
    added.currency,
    added.amount_minor,
    added.release_date,
    CAST(:now AS timestamptz)
  FROM added
  INNER JOIN buffer.wallet AS payee ON added.payee_wallet_id = payee.wallet_id
  WHERE CAST(:notify AS boolean)
  ORDER BY added.hold_id
)

SELECT
  pg_catalog.array_agg(hold_id) AS hold_ids,
  pg_catalog.array_agg(reference) AS "references"
FROM added
