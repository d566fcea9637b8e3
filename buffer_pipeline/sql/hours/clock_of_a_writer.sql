-- Marks the hour of the database's clock as being written until the transaction ends, and then reads the
-- clock.
-- The mark comes first. So a count that did not see the mark began before the returned time.
WITH
entered AS MATERIALIZED (
  SELECT buffer.enter_hour(buffer.clock()) AS done
)

SELECT buffer.clock() AS now
FROM entered
