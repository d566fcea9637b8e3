-- The next holds of an owner after :key: the newest first, or the oldest first if not :newest. Of a payer by
-- id, of a payee in the order in which their PENDING_EARNING was written: that is the key. Reads only, one
-- generation of the index after the other (docs/decisions/0019), until enough are found.
WITH
candidate AS MATERIALIZED (
  SELECT
    found.key,
    found.hold_id
  FROM buffer.holds_of_owner(
    CAST(:owner AS text),
    CAST(:as_payer AS boolean),
    CAST(:newest AS boolean),
    CAST(:key AS bigint),
    CAST(:row_limit AS bigint)
  ) AS found
)

SELECT
  candidate.key,
  hold.*
FROM candidate
LEFT JOIN buffer.read_holds(
  ARRAY(
    SELECT chosen.hold_id
    FROM candidate AS chosen
  ),
  CAST(:filters AS jsonb)
) AS hold ON candidate.hold_id = hold.hold_id
ORDER BY CASE WHEN CAST(:newest AS boolean) THEN -candidate.key ELSE candidate.key END
