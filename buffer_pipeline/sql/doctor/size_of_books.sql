-- How large the transactions are, which reconciling reads all of.
SELECT pg_relation_size('buffer.transaction') AS transaction_bytes
