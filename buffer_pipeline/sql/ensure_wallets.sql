-- Creates the wallets that are missing, each of (:owners, :currencies). Safe to run again.
INSERT INTO buffer.wallet (owner, currency)
SELECT DISTINCT
  incoming.owner,
  incoming.currency
FROM unnest(CAST(:owners AS text[]), CAST(:currencies AS text[])) AS incoming (owner, currency)
WHERE NOT EXISTS (
  SELECT FROM buffer.wallet
  WHERE wallet.owner = incoming.owner AND wallet.currency = incoming.currency
)
ORDER BY incoming.owner, incoming.currency
ON CONFLICT (owner, currency) DO NOTHING
RETURNING wallet_id
