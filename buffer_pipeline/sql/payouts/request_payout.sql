-- A new payout, REQUESTED, whose amount goes from the balance into TRANSIT. The caller has locked the wallet.
-- One row; none if the balance is smaller.
WITH
requested AS (
  INSERT INTO buffer.payout (
    wallet_id, currency, amount_minor, whole_balance, reference, requested_by, requested_at, override_reason
  )
  SELECT
    wallet.wallet_id,
    wallet.currency,
    CAST(:amount_minor AS bigint),
    CAST(:whole_balance AS boolean),
    :reference,
    :requested_by,
    CAST(:now AS timestamptz),
    CAST(:override_reason AS text)
  FROM buffer.wallet
  WHERE
    wallet.wallet_id = CAST(:wallet_id AS bigint)
    AND wallet.balance_minor >= CAST(:amount_minor AS bigint)
  RETURNING payout_id, wallet_id, currency, amount_minor
),

debited AS (
  UPDATE buffer.wallet
  SET balance_minor = wallet.balance_minor - requested.amount_minor
  FROM requested
  WHERE wallet.wallet_id = requested.wallet_id
  RETURNING
    requested.payout_id,
    requested.amount_minor,
    wallet.wallet_id,
    wallet.currency,
    wallet.balance_minor
)

INSERT INTO buffer.transaction (
  type, from_account, from_wallet_id, to_account, currency, amount_minor, balance_after_minor, payout_id,
  recorded_at
)
SELECT
  'PAYOUT',
  'BALANCE',
  wallet_id,
  'TRANSIT',
  currency,
  amount_minor,
  balance_minor,
  payout_id,
  CAST(:now AS timestamptz)
FROM debited
RETURNING payout_id, balance_after_minor
