-- Until the transaction ends: a statement that takes longer than :milliseconds_max fails, and no plan is
-- JIT-compiled.
SELECT
  set_config('statement_timeout', CAST(:milliseconds_max AS text), true) AS statement_timeout,
  set_config('jit', 'off', true) AS jit
