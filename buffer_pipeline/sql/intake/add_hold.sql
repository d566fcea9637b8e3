-- (nothing) -> BUFFERED for one earning whose reference is new and whose wallets exist. If an owner_freeze_id
-- is returned, the payee is frozen, and intake/cover_holds_of_owners.sql must freeze the hold. It is read with
-- the wallet's lock, so it is the latest, even if the statement has waited for the lock.
-- Returns no row, and moves no money, if the reference exists or another transaction commits it first; if a
-- wallet is missing or full; if :now is too far ahead (hours/enter_hour.sql); if the currency has other
-- places in the books than :places, with which the amount was parsed; if not :has_rule, but the payee has a
-- rule or there is a rule "standard"; or if the job has another payer or an open backjob. Then intake/add.py
-- finds out which.
-- The row of an existing job is written, for the reason given in intake/lock_jobs.sql.
-- Marks the hour of :now before it waits for anything. Lock order: the job, the reference, the payee's
-- wallet. The wallet is locked before the transaction row takes its id, so that ids are in the order of each
-- wallet's history.
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
      WHERE hold.reference = CAST(:reference AS text) AND hold.earning_id IS NULL
    )
    AND (
      CAST(:has_rule AS boolean)
      OR (
        (
          SELECT rule_assignment.name
          FROM buffer.rule_assignment
          WHERE rule_assignment.owner = CAST(:payee AS text)
          ORDER BY rule_assignment.number DESC
          LIMIT 1
        ) IS NULL
        AND (
          SELECT hold_rule.retired_at IS NULL
          FROM buffer.hold_rule
          WHERE hold_rule.name = 'standard'
          ORDER BY hold_rule.version DESC
          LIMIT 1
        ) IS NOT TRUE
      )
    )
    AND NOT (
      pg_catalog.row_security_active('buffer.batch')
      AND CAST(:now AS timestamptz) > buffer.clock() + interval '1 day'
    )
    AND EXISTS (
      SELECT FROM buffer.currency
      WHERE currency.currency = CAST(:currency AS text) AND currency.places = CAST(:places AS smallint)
    )
),

its_job AS (
  INSERT INTO buffer.job AS existing (job, payer)
  SELECT
    CAST(:job AS text),
    CAST(:payer AS text)
  FROM entered
  ON CONFLICT (job) DO UPDATE SET open_backjob_id = NULL
  WHERE existing.payer = excluded.payer AND existing.open_backjob_id IS NULL
  RETURNING existing.job
),

added AS (
  INSERT INTO buffer.hold (
    reference, job, title, payee_wallet_id, payer_wallet_id,
    currency, amount_minor, held_at, original_release_date, metadata, rule_id
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
    CAST(:release_date AS timestamptz),
    CAST(:metadata AS jsonb),
    CAST(:rule_id AS bigint)
  FROM entered
  WHERE EXISTS (SELECT FROM its_job)
  ON CONFLICT (reference) WHERE earning_id IS NULL DO NOTHING
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
  RETURNING added.hold_id, wallet.wallet_id, added.currency, added.amount_minor, wallet.owner_freeze_id
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

notified AS (
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

SELECT
  hold_id,
  owner_freeze_id
FROM buffered_wallet
