-- Until the transaction ends: a lock that somebody keeps for longer than :wait_milliseconds is given up, with an
-- error; holds and wallets are found by index, each for itself, whatever the statistics say of them, and no plan
-- is compiled.
SELECT
  set_config('lock_timeout', CAST(:wait_milliseconds AS text), TRUE) AS lock_timeout,
  set_config('enable_seqscan', 'off', TRUE) AS enable_seqscan,
  set_config('enable_hashjoin', 'off', TRUE) AS enable_hashjoin,
  set_config('enable_mergejoin', 'off', TRUE) AS enable_mergejoin,
  set_config('jit', 'off', TRUE) AS jit
