-- The hold with the id :hold_id, or the earning's own hold with the :reference, which its other shares have
-- too. Reads only.
SELECT hold.*
FROM buffer.read_holds(
  ARRAY(
    SELECT named.hold_id
    FROM buffer.hold AS named
    WHERE
      named.hold_id = CAST(:hold_id AS bigint)
      OR (named.reference = CAST(:reference AS text) AND named.earning_id IS NULL)
  ),
  '{}'
) AS hold
