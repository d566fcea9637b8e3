-- Adds currencies with their decimal places; what the books have already stays as it is. Safe to run again.
-- Waits for another transaction that adds the same one.
INSERT INTO buffer.currency (currency, places)
SELECT
  incoming.currency,
  incoming.places
FROM unnest(CAST(:currencies AS text[]), CAST(:places AS smallint[])) AS incoming (currency, places)
ORDER BY incoming.currency
ON CONFLICT (currency) DO NOTHING
RETURNING currency
