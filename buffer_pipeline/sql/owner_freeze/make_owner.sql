-- Makes the owner's row, or locks it, and returns the owner's open freeze. Until the transaction ends, nobody
-- else freezes or unfreezes the owner, and no wallet of the owner is made.
-- An existing row is written, for the reason given in wallet/ensure_wallets.sql.
INSERT INTO buffer.owner AS existing (owner)
VALUES (CAST(:owner AS text))
ON CONFLICT (owner) DO UPDATE SET owner_freeze_id = existing.owner_freeze_id
RETURNING existing.owner_freeze_id
