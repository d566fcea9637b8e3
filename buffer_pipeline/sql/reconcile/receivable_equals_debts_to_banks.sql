-- Per currency, the account RECEIVABLE has what is outstanding of the debts for what banks took.
WITH
owed AS (
  SELECT
    currency,
    sum(outstanding_minor) AS outstanding_minor
  FROM buffer.debt
  WHERE creditor_wallet_id IS NULL
  GROUP BY currency
),

booked AS (
  SELECT
    currency,
    sum(CASE WHEN from_account = 'RECEIVABLE' THEN amount_minor ELSE -amount_minor END) AS receivable_minor
  FROM buffer.transaction
  WHERE 'RECEIVABLE' IN (from_account, to_account)
  GROUP BY currency
)

SELECT
  currency,
  coalesce(owed.outstanding_minor, 0) AS outstanding_minor,
  coalesce(booked.receivable_minor, 0) AS receivable_minor
FROM owed
FULL JOIN booked USING (currency)
WHERE coalesce(owed.outstanding_minor, 0) <> coalesce(booked.receivable_minor, 0)
ORDER BY currency
