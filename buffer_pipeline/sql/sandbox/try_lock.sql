-- One advance at a time, until the transaction ends. Never waits. The transaction does nothing else, so it may be idle
-- for as long as the advance takes.
SELECT
  pg_try_advisory_xact_lock(hashtextextended('buffer.sandbox.advance', 0)) AS is_mine,
  set_config('idle_in_transaction_session_timeout', '0', TRUE) AS patience
