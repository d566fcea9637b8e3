-- Sets the clock, and that the work of every full hour until :worked_until is done. A trigger refuses to go back.
UPDATE buffer.sandbox
SET now = CAST(:now AS timestamptz), worked_until = CAST(:worked_until AS timestamptz)
RETURNING sandbox.now
