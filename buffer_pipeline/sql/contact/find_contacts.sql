-- The contacts of :owners. An owner without one has no row.
SELECT
  owner,
  locale,
  time_zone,
  email,
  notify_of_shares
FROM buffer.contact
WHERE owner = any(CAST(:owners AS text[]))
