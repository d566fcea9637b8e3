-- Locks the owner's row, if there is one, and returns the owner's open freeze. Until the transaction ends,
-- nobody else freezes or unfreezes the owner, and no wallet of the owner is made.
SELECT owner_freeze_id
FROM buffer.owner
WHERE owner = CAST(:owner AS text)
FOR NO KEY UPDATE
