-- The database's clock, not the start of the transaction.
SELECT clock_timestamp() AS now
