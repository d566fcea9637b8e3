-- The roles of docs/roles.md: whether the server has each, whether it has its rights in these books (one
-- privilege is checked as a sample), and whether this login is a member. Also the name of this login.
SELECT
  role.name,
  pg_roles.oid IS NOT NULL AS is_there,
  coalesce(
    has_schema_privilege(pg_roles.oid, books.oid, 'USAGE')
    AND has_any_column_privilege(pg_roles.oid, pg_class.oid, role.privilege),
    FALSE
  ) AS has_its_rights,
  coalesce(pg_has_role(pg_roles.oid, 'USAGE'), FALSE) AS is_ours,
  current_user::text AS login,
  coalesce(pg_has_role(books.nspowner, 'USAGE'), FALSE) AS owns_the_books
FROM (
  VALUES ('buffer_platform', 'hold', 'INSERT'),
  ('buffer_releaser', 'batch', 'INSERT'),
  ('buffer_reader', 'transaction', 'SELECT'),
  ('buffer_payouts', 'payout_batch', 'INSERT'),
  ('buffer_api', 'api_request', 'INSERT')
) AS role (name, relation, privilege)
LEFT JOIN pg_roles ON pg_roles.rolname = role.name
LEFT JOIN pg_namespace AS books ON books.nspname = 'buffer'
LEFT JOIN pg_class ON pg_class.relname = role.relation AND pg_class.relnamespace = books.oid
ORDER BY role.name
