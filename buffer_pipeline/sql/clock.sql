-- The database's clock, not the transaction's start.
SELECT clock_timestamp() AS now
