-- The largest debt that an owner has in any currency, in minor units: above zero if they owe something. Reads only.
-- A statement of its own after the wallet's lock, so that it sees a debt that was opened during the wait.
SELECT coalesce(max(debt_minor), 0) AS debt_minor
FROM buffer.wallet
WHERE owner = :owner
