-- How much more each existing wallet of (:owners, :currencies) can take.
SELECT
  owner,
  currency,
  9223372036854775807 - balance_minor - pending_earnings_minor AS capacity_minor
FROM buffer.wallet
WHERE
  (owner, currency) IN (
    SELECT
      asked.owner,
      asked.currency
    FROM unnest(CAST(:owners AS text[]), CAST(:currencies AS text[])) AS asked (owner, currency)
  )
