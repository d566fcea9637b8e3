-- The move of a release date with this reference: the line of the hold that was named, and all holds that moved.
SELECT
  hold_id,
  by AS moved_by,
  reason,
  from_date,
  to_date,
  -- The line of a hold that moved alone does not list it.
  ARRAY(
    SELECT CAST(moved.hold_id AS bigint)
    FROM
      pg_catalog.jsonb_array_elements_text(
        coalesce(audit_line.detail -> 'hold_ids', pg_catalog.jsonb_build_array(audit_line.hold_id))
      ) AS moved (hold_id)
    ORDER BY 1
  ) AS hold_ids,
  reference
FROM buffer.audit_line
WHERE reference = CAST(:reference AS text)
