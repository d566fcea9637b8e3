-- Moves money between a system account and the balance of a wallet, which the caller has locked.
-- Returns no row if another transaction has committed the reference first, or if the wallet would hold more
-- than a bigint.
WITH
moved AS (
  INSERT INTO buffer.transaction (
    type, from_account, from_wallet_id, to_account, to_wallet_id,
    currency, amount_minor, balance_after_minor, reference, recorded_at
  )
  SELECT
    :type,
    :from_account,
    CASE WHEN :from_account = 'BALANCE' THEN wallet_id END,
    :to_account,
    CASE WHEN :to_account = 'BALANCE' THEN wallet_id END,
    currency,
    CAST(:amount_minor AS bigint),
    balance_minor
    + CASE WHEN :to_account = 'BALANCE' THEN 1 ELSE -1 END * CAST(:amount_minor AS bigint),
    :reference,
    CAST(:now AS timestamptz)
  FROM buffer.wallet
  WHERE
    wallet_id = CAST(:wallet_id AS bigint)
    AND (
      :to_account <> 'BALANCE'
      OR CAST(:amount_minor AS bigint) <= 9223372036854775807 - pending_earnings_minor - balance_minor
    )
  ON CONFLICT (reference) WHERE reference IS NOT NULL DO NOTHING
  RETURNING transaction_id, balance_after_minor
),

changed_wallet AS (
  UPDATE buffer.wallet
  SET balance_minor = moved.balance_after_minor
  FROM moved
  WHERE wallet.wallet_id = CAST(:wallet_id AS bigint)
)

SELECT
  transaction_id,
  balance_after_minor
FROM moved
