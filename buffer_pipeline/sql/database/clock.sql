-- The clock of the books, not the start of the transaction: the database's; in a sandbox, its own.
SELECT buffer.clock() AS now
