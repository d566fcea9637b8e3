-- Lets policies that a migration has made follow the clock of a sandbox; does nothing in real books.
SELECT buffer.follow_the_sandbox() AS done
FROM buffer.sandbox
