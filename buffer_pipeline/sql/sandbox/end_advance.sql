-- The advance has come to its end.
UPDATE buffer.sandbox
SET advance_from = NULL, advance_to = NULL
RETURNING sandbox.now
