-- Until the transaction ends: waiting for a lock fails after :wait_milliseconds; holds and wallets are found
-- one by one by their indexes, whatever the statistics say; and no plan is JIT-compiled.
SELECT
  set_config('lock_timeout', CAST(:wait_milliseconds AS text), TRUE) AS lock_timeout,
  set_config('enable_seqscan', 'off', TRUE) AS enable_seqscan,
  set_config('enable_hashjoin', 'off', TRUE) AS enable_hashjoin,
  set_config('enable_mergejoin', 'off', TRUE) AS enable_mergejoin,
  set_config('jit', 'off', TRUE) AS jit
