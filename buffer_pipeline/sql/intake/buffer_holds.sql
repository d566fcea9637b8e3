-- Moves the money of :hold_ids into the buffer. This transaction has added the holds and locked their payees'
-- wallets.
-- Returns the amount, and whether a payee is frozen (intake/cover_holds_of_owners.sql).
-- The wallets are locked before a transaction row takes its id, so that ids are in the order of each wallet's
-- history.
WITH
added AS MATERIALIZED (
  SELECT
    hold_id,
    kind,
    payee_wallet_id,
    currency,
    amount_minor,
    release_date
  FROM buffer.unsettled_hold
  WHERE hold_id = any(CAST(:hold_ids AS bigint[]))
),

wallet_total AS MATERIALIZED (
  SELECT
    payee_wallet_id AS wallet_id,
    CAST(sum(amount_minor) AS bigint) AS amount_minor
  FROM added
  GROUP BY payee_wallet_id
),

buffered_wallet AS (
  UPDATE buffer.wallet
  SET pending_earnings_minor = wallet.pending_earnings_minor + wallet_total.amount_minor
  FROM wallet_total
  WHERE wallet.wallet_id = wallet_total.wallet_id
  RETURNING wallet_total.amount_minor, wallet.owner_freeze_id
),

pending AS (
  INSERT INTO buffer.transaction (
    type, from_account, to_account, to_wallet_id, currency, amount_minor, hold_id, recorded_at
  )
  SELECT
    'PENDING_EARNING',
    'ESCROW',
    'PENDING_EARNINGS',
    payee_wallet_id,
    currency,
    amount_minor,
    hold_id,
    CAST(:now AS timestamptz)
  FROM added
  ORDER BY hold_id
),

notified AS (
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
  WHERE
    CAST(:notify AS boolean)
    -- As buffer.notifies_of, of earnings whose first share waits; a call of it would plan its query each time.
    AND (
      added.kind = 'PAYEE'
      OR (added.kind <> 'RESERVE' AND EXISTS (
        SELECT FROM buffer.contact
        WHERE contact.owner = payee.owner AND contact.notify_of_shares
      ))
    )
  ORDER BY added.hold_id
)

SELECT
  coalesce(sum(amount_minor), 0) AS buffered_minor,
  coalesce(bool_or(owner_freeze_id IS NOT NULL), FALSE) AS has_frozen_owner
FROM buffered_wallet
