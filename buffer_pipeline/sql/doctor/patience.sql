-- Sets the time limit of the statements in the caller's transaction, because a check must not wait for a
-- lock.
SELECT set_config('statement_timeout', CAST(:milliseconds AS text), TRUE)
