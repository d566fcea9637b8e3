-- The clock of a sandbox; no row in real books.
SELECT
  sandbox.now,
  sandbox.worked_until,
  sandbox.advance_from,
  sandbox.advance_to,
  sandbox.daily_payouts
FROM buffer.sandbox
