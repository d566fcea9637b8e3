-- Exports the five tables that an import reads, in one snapshot, as CSV files into the folder where psql runs:
--   psql "$DJANGO_URL" --file deploy/django/export.sql
\set ON_ERROR_STOP on
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO';
\copy (SELECT * FROM public.accounts_accounts ORDER BY 1) TO 'accounts_accounts.csv' WITH (FORMAT csv, HEADER, ENCODING 'UTF8')
\copy (SELECT * FROM public.accounts_wallet ORDER BY 1) TO 'accounts_wallet.csv' WITH (FORMAT csv, HEADER, ENCODING 'UTF8')
\copy (SELECT * FROM public.accounts_transaction ORDER BY 1) TO 'accounts_transaction.csv' WITH (FORMAT csv, HEADER, ENCODING 'UTF8')
\copy (SELECT * FROM public.jobs ORDER BY 1) TO 'jobs.csv' WITH (FORMAT csv, HEADER, ENCODING 'UTF8')
\copy (SELECT * FROM public.job_disputes ORDER BY 1) TO 'job_disputes.csv' WITH (FORMAT csv, HEADER, ENCODING 'UTF8')
COMMIT;
