-- Until the transaction ends: tables are read through their indexes, whatever the statistics say, and no plan
-- is JIT-compiled. The statements that follow read few rows of large tables.
SELECT
  set_config('enable_seqscan', 'off', true) AS enable_seqscan,
  set_config('jit', 'off', true) AS jit
