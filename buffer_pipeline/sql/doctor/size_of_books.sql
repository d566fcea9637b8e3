-- The size of the transactions, all of which a reconciliation reads.
SELECT pg_relation_size('buffer.transaction') AS transaction_bytes
