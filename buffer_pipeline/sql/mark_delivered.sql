-- Marks notifications that this transaction has locked as delivered.
UPDATE buffer.notification
SET delivered_at = CAST(:now AS timestamptz)
WHERE notification_id = any(CAST(:notification_ids AS bigint[])) AND delivered_at IS NULL
RETURNING notification_id
