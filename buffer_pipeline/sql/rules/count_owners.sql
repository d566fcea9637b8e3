-- How many owners have each of the rules :names. One row per name that an owner has; an assignment that a later
-- one of its owner replaced does not count. Reads only.
SELECT
  assigned.name,
  count(*) AS owners
FROM buffer.rule_assignment AS assigned
WHERE
  assigned.name = any(CAST(:names AS text[]))
  AND NOT EXISTS (
    SELECT FROM buffer.rule_assignment AS later
    WHERE later.owner = assigned.owner AND later.number > assigned.number
  )
GROUP BY assigned.name
