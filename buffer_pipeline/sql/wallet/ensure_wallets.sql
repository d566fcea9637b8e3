-- Makes the missing wallets of (:owners, :currencies), in the order of owner and currency. Safe to run again.
-- A wallet names its owner's open freeze, so the owner's row is made or locked first, in the order of owners:
-- until the transaction ends, the owner is not frozen and not unfrozen. The row of an existing owner is
-- written: a REPEATABLE READ transaction that freezes the owner from a snapshot before the wallet must fail
-- with a serialization error.
-- `coalesce(...) > 0` keeps the planner from reducing the FULL JOIN, which is never a nested loop, to an inner
-- join.
WITH
missing AS MATERIALIZED (
  SELECT DISTINCT
    incoming.owner,
    incoming.currency
  FROM unnest(CAST(:owners AS text[]), CAST(:currencies AS text[])) AS incoming (owner, currency)
  WHERE NOT EXISTS (
    SELECT FROM buffer.wallet
    WHERE wallet.owner = incoming.owner AND wallet.currency = incoming.currency
  )
),

locked AS (
  INSERT INTO buffer.owner AS existing (owner)
  SELECT DISTINCT owner
  FROM missing
  ORDER BY owner
  ON CONFLICT (owner) DO UPDATE SET owner_freeze_id = existing.owner_freeze_id
  RETURNING existing.owner, existing.owner_freeze_id
)

INSERT INTO buffer.wallet (owner, currency, owner_freeze_id)
SELECT
  missing.owner,
  missing.currency,
  locked.owner_freeze_id
FROM missing
FULL JOIN locked ON missing.owner = locked.owner
WHERE coalesce(length(missing.owner), 0) > 0 AND coalesce(length(locked.owner), 0) > 0
ORDER BY missing.owner, missing.currency
ON CONFLICT (owner, currency) DO NOTHING
RETURNING wallet_id
