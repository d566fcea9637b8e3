-- Each role of docs/roles.md: whether the server has it, whether it has its rights in these books, which one
-- privilege stands for, and whether this login is one; and who this login is.
SELECT
  role.name,
  pg_roles.oid IS NOT NULL AS is_there,
  coalesce(
    has_schema_privilege(pg_roles.oid, 'buffer', 'USAGE')
    AND has_any_column_privilege(pg_roles.oid, role.relation, role.privilege),
    FALSE
  ) AS has_its_rights,
  coalesce(pg_has_role(pg_roles.oid, 'USAGE'), FALSE) AS is_ours,
  current_user::text AS login,
  (
    SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace
    WHERE nspname = 'buffer'
  ) AS owns_the_books
FROM (
  VALUES ('buffer_platform', 'buffer.hold', 'INSERT'),
  ('buffer_releaser', 'buffer.batch', 'INSERT'),
  ('buffer_reader', 'buffer.transaction', 'SELECT')
) AS role (name, relation, privilege)
LEFT JOIN pg_roles ON pg_roles.rolname = role.name
ORDER BY role.name
