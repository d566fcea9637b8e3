-- New payouts, REQUESTED, of all that is in the locked wallets :wallet_ids, one of each, if it is at least the
-- minimum of its currency (:currencies, :minimums_minor). :days has the day of each wallet. Not of a wallet that has
-- a payout of its day already, and not for an owner without a destination.
-- A reference that somebody else has used by hand is skipped, because it has its payout already.
WITH
minimum AS (
  SELECT
    currency,
    minimum_minor
  FROM unnest(CAST(:currencies AS text[]), CAST(:minimums_minor AS bigint[])) AS given (currency, minimum_minor)
),

requested AS (
  INSERT INTO buffer.payout (
    wallet_id, currency, amount_minor, whole_balance, reference, requested_by, requested_at
  )
  SELECT
    wallet.wallet_id,
    wallet.currency,
    wallet.balance_minor,
    TRUE,
    'schedule:' || locked.day || ':'
    || CASE WHEN length(wallet.owner) <= 170 THEN wallet.owner ELSE 'wallet ' || wallet.wallet_id END
    || ':' || wallet.currency,
    :requested_by,
    CAST(:now AS timestamptz)
  FROM unnest(CAST(:wallet_ids AS bigint[]), CAST(:days AS text[])) AS locked (wallet_id, day)
  INNER JOIN buffer.wallet ON locked.wallet_id = wallet.wallet_id
  LEFT JOIN minimum ON wallet.currency = minimum.currency
  WHERE
    wallet.balance_minor BETWEEN greatest(coalesce(minimum.minimum_minor, 1), 1) AND 1000000000000000
    AND wallet.owner_freeze_id IS NULL
    AND (
      SELECT max(other.debt_minor)
      FROM buffer.wallet AS other
      WHERE other.owner = wallet.owner
    ) = 0
    AND (
      SELECT max(destination.version)
      FROM buffer.payout_destination AS destination
      WHERE destination.owner = wallet.owner
    ) IS NOT NULL
  ORDER BY wallet.wallet_id
  ON CONFLICT (reference) DO NOTHING
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
),

line AS (
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
  ORDER BY payout_id
  RETURNING currency, amount_minor
)

SELECT
  currency,
  count(*) AS payouts,
  CAST(sum(amount_minor) AS bigint) AS amount_minor
FROM line
GROUP BY currency
ORDER BY currency
