-- An owner names their open freeze, and so does each of their wallets; or none if none is open.
WITH
open_freeze AS (
  SELECT
    owner_freeze_id,
    owner
  FROM buffer.owner_freeze
  WHERE closed_at IS NULL
),

named AS (
  SELECT
    owner,
    CAST(NULL AS bigint) AS wallet_id,
    owner_freeze_id
  FROM buffer.owner
  UNION ALL
  SELECT
    owner,
    wallet_id,
    owner_freeze_id
  FROM buffer.wallet
)

SELECT
  coalesce(named.owner, open_freeze.owner) AS owner,
  named.wallet_id,
  named.owner_freeze_id AS named_owner_freeze_id,
  open_freeze.owner_freeze_id AS open_owner_freeze_id
FROM named
FULL JOIN open_freeze ON named.owner = open_freeze.owner
WHERE named.owner_freeze_id IS DISTINCT FROM open_freeze.owner_freeze_id
ORDER BY 1, 2
