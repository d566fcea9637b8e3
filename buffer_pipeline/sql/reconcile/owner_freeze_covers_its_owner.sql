-- An open freeze of an owner covers every hold that waits for the owner, and a closed one covers none.
WITH
owed AS (
  SELECT
    unsettled_hold.hold_id,
    owner_freeze.owner_freeze_id
  FROM buffer.owner_freeze
  INNER JOIN buffer.wallet ON owner_freeze.owner = wallet.owner
  INNER JOIN buffer.unsettled_hold ON wallet.wallet_id = unsettled_hold.payee_wallet_id
  WHERE owner_freeze.closed_at IS NULL
),

covered AS (
  SELECT
    hold_id,
    owner_freeze_id,
    freeze_id
  FROM buffer.hold_freeze
  WHERE owner_freeze_id IS NOT NULL AND closed_at IS NULL
)

SELECT
  coalesce(owed.hold_id, covered.hold_id) AS hold_id,
  coalesce(owed.owner_freeze_id, covered.owner_freeze_id) AS owner_freeze_id,
  covered.freeze_id
FROM owed
FULL JOIN covered ON owed.hold_id = covered.hold_id AND owed.owner_freeze_id = covered.owner_freeze_id
WHERE owed.hold_id IS NULL OR covered.hold_id IS NULL
ORDER BY 1, 2
