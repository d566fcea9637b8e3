-- Until the transaction ends, tables are read through their indexes, whatever the statistics say, and no
-- plan is compiled: what a run touched is little of large books.
SELECT
  set_config('enable_seqscan', 'off', true) AS enable_seqscan,
  set_config('jit', 'off', true) AS jit
