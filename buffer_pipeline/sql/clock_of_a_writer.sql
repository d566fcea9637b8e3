-- Marks the hour of the clock as being written until the transaction ends, and then reads the clock.
-- The mark comes first, so that a count that does not see it was begun before the time that is returned.
WITH
entered AS MATERIALIZED (
  SELECT buffer.enter_hour(clock_timestamp()) AS done
)

SELECT clock_timestamp() AS now
FROM entered
