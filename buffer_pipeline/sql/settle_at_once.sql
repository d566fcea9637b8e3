-- Until the transaction ends: a lock that somebody keeps for longer than :wait_milliseconds is given up, with an
-- error; rows are found by index, whatever the statistics say of them, and no plan is compiled.
SELECT
  set_config('lock_timeout', CAST(:wait_milliseconds AS text), TRUE) AS lock_timeout,
  set_config('enable_seqscan', 'off', TRUE) AS enable_seqscan,
  set_config('jit', 'off', TRUE) AS jit
