-- (nothing) -> BUFFERED for one earning whose reference is new and whose wallets are there.
-- No row comes back, and no money moves, when the reference exists or another transaction commits it first; when a
-- wallet is missing or full; when :now is too far ahead (enter_hour.sql); when the currency has other places in the books than the :places that the amount was
-- read by; and when the job has another payer or an open backjob. intake.py knows what to do then.
-- The row of a job that is there is written, for the reason given in lock_jobs.sql.
-- Marks the hour of :now before it waits for anything. Lock order: the job, the reference, the payee's wallet; the wallet
-- before the transaction takes its id, so that ids are in the order of each wallet's history.
WITH
entered AS MATERIALIZED (
  SELECT
    payee.wallet_id AS payee_wallet_id,
    payer.wallet_id AS payer_wallet_id,
    buffer.enter_hour(CAST(:now AS timestamptz)) AS done
  FROM buffer.wallet AS payee
  CROSS JOIN buffer.wallet AS payer
  WHERE
    payee.owner = CAST(:payee AS text)
    AND payee.currency = CAST(:currency AS text)
    AND payer.owner = CAST(:payer AS text)
    AND payer.currency = CAST(:currency AS text)
    AND CAST(:amount_minor AS bigint) <= 9223372036854775807 - payee.balance_minor - payee.pending_earnings_minor
    AND NOT EXISTS (
      SELECT FROM buffer.hold
      WHERE hold.reference = CAST(:reference AS text)
    )
    AND NOT (
      pg_catalog.row_security_active('buffer.batch')
      AND CAST(:now AS timestamptz) > clock_timestamp() + interval '1 day'
    )
    AND EXISTS (
      SELECT FROM buffer.currency
      WHERE currency.currency = CAST(:currency AS text) AND currency.places = CAST(:places AS smallint)
    )
),

its_job AS (
  INSERT INTO buffer.job AS standing (job, payer)
  SELECT
    CAST(:job AS text),
    CAST(:payer AS text)
  FROM entered
  ON CONFLICT (job) DO UPDATE SET open_backjob_id = NULL
  WHERE standing.payer = excluded.payer AND standing.open_backjob_id IS NULL
  RETURNING standing.job
),

added AS (
  INSERT INTO buffer.hold (
    reference, job, title, payee_wallet_id, payer_wallet_id,
    currency, amount_minor, held_at, original_release_date
  )
  SELECT
    CAST(:reference AS text),
    CAST(:job AS text),
    CAST(:title AS text),
    payee_wallet_id,
    payer_wallet_id,
    CAST(:currency AS text),
    CAST(:amount_minor AS bigint),
    CAST(:held_at AS timestamptz),
    CAST(:release_date AS timestamptz)
  FROM entered
  WHERE EXISTS (SELECT FROM its_job)
  ON CONFLICT (reference) DO NOTHING
  RETURNING hold_id, payee_wallet_id, currency, amount_minor, original_release_date AS release_date
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
),

buffered_wallet AS (
  UPDATE buffer.wallet
  SET pending_earnings_minor = wallet.pending_earnings_minor + added.amount_minor
  FROM added
  WHERE wallet.wallet_id = added.payee_wallet_id
  RETURNING added.hold_id, wallet.wallet_id, added.currency, added.amount_minor
),

pending AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, to_wallet_id, currency, amount_minor, hold_id, recorded_at
  )
  SELECT
    'PENDING_EARNING',
    'ESCROW',
    'PENDING_EARNINGS',
    wallet_id,
    currency,
    amount_minor,
    hold_id,
    CAST(:now AS timestamptz)
  FROM buffered_wallet
),

told AS (
  INSERT INTO buffer.notification (
    type, owner, hold_id, currency, amount_minor, release_date, created_at
  )
  SELECT
    'PAYMENT_PENDING',
    CAST(:payee AS text),
    hold_id,
    currency,
    amount_minor,
    release_date,
    CAST(:now AS timestamptz)
  FROM added
)

SELECT hold_id FROM added
