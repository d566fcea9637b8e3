-- How long a statement of the caller's transaction may take: a check must not wait for somebody's lock.
SELECT set_config('statement_timeout', CAST(:milliseconds AS text), TRUE)
