-- For psql, as a superuser: creates the owner of the books, a login for each role of docs/roles.md, and two
-- databases. The environment names the files of the passwords. Safe to run again: existing logins get the given
-- password.
\set ON_ERROR_STOP on
\set owner_password `cat "$OWNER_PASSWORD_FILE"`
\set dagster_password `cat "$DAGSTER_PASSWORD_FILE"`
\set platform_password `cat "$PLATFORM_PASSWORD_FILE"`
\set reader_password `cat "$READER_PASSWORD_FILE"`
\set payouts_password `cat "$PAYOUTS_PASSWORD_FILE"`

SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY[
  'buffer', 'buffer_platform', 'buffer_releaser', 'buffer_reader', 'buffer_payouts', 'buffer_api',
  'dagster', 'platform', 'reader', 'payouts'
]) AS role
WHERE to_regrole(role) IS NULL
\gexec

ALTER ROLE buffer LOGIN PASSWORD :'owner_password';
ALTER ROLE dagster LOGIN PASSWORD :'dagster_password';
ALTER ROLE platform LOGIN PASSWORD :'platform_password';
ALTER ROLE reader LOGIN PASSWORD :'reader_password';
ALTER ROLE payouts LOGIN PASSWORD :'payouts_password';
GRANT buffer_releaser TO dagster;
GRANT buffer_platform TO platform;
GRANT buffer_reader TO reader;
GRANT buffer_payouts TO payouts;

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('buffer', 'buffer'), ('buffer_dagster', 'dagster')) AS database (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

-- Each login may connect only to the database that it works on.
REVOKE CONNECT, TEMPORARY ON DATABASE buffer, buffer_dagster FROM PUBLIC;
GRANT CONNECT ON DATABASE buffer TO buffer_platform, buffer_releaser, buffer_reader, buffer_payouts;
