-- The contacts of :owners; an owner without one has no row.
SELECT
  owner,
  locale,
  time_zone,
  email
FROM buffer.contact
WHERE owner = any(CAST(:owners AS text[]))
