-- (nothing) -> BUFFERED for one earning whose reference is new and whose wallets are there.
-- No row comes back, and nothing is written, when the reference stands already, when another
-- transaction commits it first, or when a wallet is missing: add_holds.sql knows what to do then.
-- Marks the hour of :now before it waits for anything; locks the payee's wallet, and that before
-- the transaction takes its id, so that ids are in the order of each wallet's history.
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
    AND NOT EXISTS (
      SELECT FROM buffer.hold
      WHERE hold.reference = CAST(:reference AS text)
    )
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
