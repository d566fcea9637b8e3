-- Marks the books as a sandbox and sets its clock. A trigger refuses books that are not empty or are written into.
-- Its policies follow the clock from then on.
INSERT INTO buffer.sandbox (sandbox_id, now, worked_until, daily_payouts)
VALUES (1, CAST(:now AS timestamptz), date_trunc('hour', CAST(:now AS timestamptz), 'UTC'), :daily_payouts)
RETURNING now, worked_until, advance_from, advance_to, daily_payouts
