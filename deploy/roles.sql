-- For psql, as a superuser: the owner of the books, a login for each role of docs/roles.md, and two databases.
-- Takes the passwords from the files that the environment names. Safe to run again: what is there gets the
-- password that is given.
\set ON_ERROR_STOP on
\set owner_password `cat "$OWNER_PASSWORD_FILE"`
\set dagster_password `cat "$DAGSTER_PASSWORD_FILE"`
\set platform_password `cat "$PLATFORM_PASSWORD_FILE"`
\set reader_password `cat "$READER_PASSWORD_FILE"`

SELECT format('CREATE ROLE %I', role)
FROM unnest(ARRAY[
  'buffer', 'buffer_platform', 'buffer_releaser', 'buffer_reader', 'dagster', 'platform', 'reader'
]) AS role
WHERE to_regrole(role) IS NULL
\gexec

ALTER ROLE buffer LOGIN PASSWORD :'owner_password';
ALTER ROLE dagster LOGIN PASSWORD :'dagster_password';
ALTER ROLE platform LOGIN PASSWORD :'platform_password';
ALTER ROLE reader LOGIN PASSWORD :'reader_password';
GRANT buffer_releaser TO dagster;
GRANT buffer_platform TO platform;
GRANT buffer_reader TO reader;

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('buffer', 'buffer'), ('buffer_dagster', 'dagster')) AS database (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

-- Each login gets into the database that is its work.
REVOKE CONNECT, TEMPORARY ON DATABASE buffer, buffer_dagster FROM PUBLIC;
GRANT CONNECT ON DATABASE buffer TO buffer_platform, buffer_releaser, buffer_reader;
