-- The server's own clock, also of a sandbox.
SELECT clock_timestamp() AS now
