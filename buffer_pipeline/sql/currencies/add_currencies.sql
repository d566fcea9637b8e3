-- Adds currencies with their decimal places, in the order of their codes; a currency that exists stays as it
-- is. Safe to run again.
-- Waits for another transaction that adds the same currency.
INSERT INTO buffer.currency (currency, places)
SELECT
  incoming.currency,
  incoming.places
FROM unnest(CAST(:currencies AS text[]), CAST(:places AS smallint[])) AS incoming (currency, places)
ORDER BY incoming.currency
ON CONFLICT (currency) DO NOTHING
RETURNING currency
