-- Remembers that operators were told in :period, and about which holds.
INSERT INTO buffer.alert (kind, period, hold_ids, sent_at)
VALUES (:kind, CAST(:period AS timestamptz), CAST(:hold_ids AS bigint []), CAST(:now AS timestamptz))
RETURNING alert_id
