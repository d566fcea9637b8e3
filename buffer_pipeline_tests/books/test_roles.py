"""Six roles with minimal privileges: each can do its work, and everything else is refused."""

import re
from typing import Any, Final

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine, statement_text
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.tables import metadata
from buffer_pipeline_tests.schema import PAGE
from buffer_pipeline_tests.support.databases import ROLES, Books
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.work_of_platform import earnings_come_in
from buffer_pipeline_tests.support.work_of_roles import do_all

SQL: Final = ROOT / "buffer_pipeline" / "sql"


def statements() -> dict[str, str]:
    """Return the name and the driver's text of every statement in sql/."""
    paths = set(SQL.rglob("*.sql")) - {PAGE}
    names = [path.relative_to(SQL).with_suffix("").as_posix() for path in paths]
    dialect = make_engine("postgresql://nobody@localhost/none").dialect
    return {str(text(statement_text(name)).compile(dialect=dialect)): name for name in names}


def test_each_role_can_do_its_work(roles: Books) -> None:
    """Every statement runs under the role that needs it, and the books are sound."""
    known = statements()
    ran = set()
    for role in ROLES:

        @event.listens_for(roles.of(role), "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            ran.add(known.get(statement))

    do_all(roles)

    # What hours count is fetched by the driver's own cursor, which this does not see; two read Dagster's
    # storage and not the books; and only the owner makes and revokes keys of the API, and makes a sandbox.
    assert sorted(set(known.values()) - ran) == [
        "api/add_key",
        "api/list_keys",
        "api/revoke_key",
        "hourly_counts/movements",
        "hourly_counts/released_shares",
        "metrics/dagster_checks",
        "metrics/dagster_runs",
        "sandbox/follow",
        "sandbox/start",
    ]
    with roles.owner.connect() as connection:
        assert reconcile(connection) == []


COLUMNS: Final = """
SELECT relname, attname, format_type(atttypid, atttypmod) AS type,
  attidentity <> '' OR attgenerated <> '' AS made_by_the_database
FROM pg_attribute
JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'buffer'::regnamespace AND relkind IN ('r', 'v') AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attnum
"""

WORDS: Final = {"read": "SELECT", "add": "INSERT", "change": "UPDATE", "delete": "DELETE"}
"""The words of docs/roles.md for privileges on rows."""


def documented(engine: Engine) -> set[tuple[str, str, str, str]]:
    """Return (role, privilege, table, column) for everything that the table of docs/roles.md allows."""
    with engine.connect() as connection:
        columns = connection.execute(text(COLUMNS)).all()
    page = (ROOT / "docs" / "roles.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()]
    lines = [line for line in lines if line[0].strip("`") in {row.relname for row in columns}]
    assert [line[0].strip("`") for line in lines] == list(dict.fromkeys(line[0].strip("`") for line in lines))
    assert {line[0].strip("`") for line in lines} == {row.relname for row in columns}
    allowed = set()
    for table, *cells in lines:
        of_table = [row for row in columns if row.relname == table.strip("`")]
        for role, cell in zip(ROLES, cells, strict=True):
            for word, named in re.findall(r"(read|add|change|delete)((?: `\w+`,?)*)", cell):
                names = set(re.findall(r"`(\w+)`", named)) or {
                    row.attname
                    for row in of_table
                    if word in {"read", "delete"} or not row.made_by_the_database
                }
                assert names <= {row.attname for row in of_table}
                allowed |= {(role, WORDS[word], table.strip("`"), name) for name in names}
    return allowed


def refusal(engine: Engine, statement: str) -> str:
    """Run a statement and roll it back. Return the SQLSTATE of its refusal, "" if it was accepted, or
    "trigger" if only a trigger refused it.
    """
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            if "kept as they were written" in str(error.orig):
                return "trigger"
            return str(getattr(error.orig, "sqlstate", error))
        return ""


def test_privileges_are_those_of_the_documentation(roles: Books) -> None:
    """Each statement on each column of each table is accepted or refused as docs/roles.md says."""
    allowed = documented(roles.owner)
    with roles.owner.connect() as connection:
        columns = connection.execute(text(COLUMNS)).all()
    expected, found = {}, {}
    for role in ROLES:
        for table, column, type_, _ in columns:
            for privilege, statement in (
                ("SELECT", f"SELECT {column} FROM buffer.{table} LIMIT 0"),
                (
                    "INSERT",
                    f"INSERT INTO buffer.{table} ({column}) OVERRIDING SYSTEM VALUE"
                    f" SELECT CAST(NULL AS {type_}) WHERE FALSE",
                ),
                ("UPDATE", f"UPDATE buffer.{table} SET {column} = DEFAULT WHERE FALSE"),
                ("DELETE", f"DELETE FROM buffer.{table} WHERE FALSE"),
            ):
                if (table, privilege) == ("hold_status", "UPDATE"):
                    continue  # PostgreSQL refuses a write to this view before it checks privileges.
                what = (role, privilege, table, column)
                expected[what] = "" if what in allowed else "42501"
                found[what] = refusal(roles.of(role), statement)

    # Nobody can write a computed column or a view of several tables.
    impossible = {"428C9", "55000"}
    differing = {
        what: (expected[what], code)
        for what, code in found.items()
        if code != expected[what] and not (code in impossible and expected[what])
    }
    assert differing == {}
    assert sum(not code for code in found.values()) == len(allowed)


TABLES: Final = sorted(table.name for table in metadata.sorted_tables)

NOBODYS: Final = [
    *(f"TRUNCATE buffer.{table} CASCADE" for table in TABLES),
    *(f"ALTER TABLE buffer.{table} DISABLE TRIGGER ALL" for table in TABLES),
    *(f"ALTER TABLE buffer.{table} ADD extra integer" for table in TABLES),
    *(f"DROP TABLE buffer.{table} CASCADE" for table in TABLES),
    "DROP TRIGGER transaction_is_append_only ON buffer.transaction",
    "DROP TRIGGER hold_is_written_once ON buffer.hold",
    "CREATE TRIGGER extra BEFORE INSERT ON buffer.hold EXECUTE FUNCTION buffer.refuse_rewriting()",
    "CREATE OR REPLACE FUNCTION buffer.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql"
    " AS 'BEGIN RETURN NULL; END'",
    "ALTER FUNCTION buffer.refuse_rewriting() RESET ALL",
    "DROP FUNCTION buffer.refuse_stray_transactions() CASCADE",
    "SELECT buffer.refuse_rewriting()",
    "CREATE OR REPLACE VIEW buffer.hold_status AS SELECT 1 AS hold_id",
    "CREATE TABLE buffer.extra (id integer)",
    "CREATE FUNCTION buffer.extra() RETURNS integer LANGUAGE sql RETURN 1",
    "SELECT setval('buffer.transaction_transaction_id_seq', 1)",
    "SELECT nextval('buffer.hold_hold_id_seq')",
    "LOCK TABLE buffer.transaction IN ACCESS EXCLUSIVE MODE",
    "SET session_replication_role = replica",
    "SET ROLE buffer",
    "SET SESSION AUTHORIZATION buffer",
    # The GRANT is only a warning, and grants nothing.
    "GRANT UPDATE ON buffer.transaction TO CURRENT_USER; UPDATE buffer.transaction SET reference = NULL",
    "DROP SCHEMA buffer CASCADE",
    "CREATE SCHEMA extra",
    "CREATE ROLE extra",
    "COPY buffer.transaction TO PROGRAM 'true'",
]


@pytest.mark.parametrize("role", ROLES)
def test_roles_cannot_truncate_or_change_the_schema(roles: Books, role: str) -> None:
    """No role can change triggers, functions, sequences or other roles either."""
    refused = {statement: refusal(roles.of(role), statement) for statement in NOBODYS}

    assert {statement: code for statement, code in refused.items() if code != "42501"} == {}


PAST: Final = [
    f"{change} WHERE FALSE"
    for table in ("transaction", "batch", "hold", "wallet", "backjob", "hold_freeze")
    for change in (f"DELETE FROM buffer.{table}", f"UPDATE buffer.{table} SET {table}_id = DEFAULT")
    if (table, change.split()[0]) != ("hold_freeze", "UPDATE")
]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_rewrite_history(roles: Books, role: str) -> None:
    """No role can update or delete written rows, not even with a WHERE that matches none."""
    earnings_come_in(roles.platform)
    with roles.owner.connect() as connection:
        before = connection.execute(text("SELECT * FROM buffer.transaction ORDER BY transaction_id")).all()
    whole = [statement.removesuffix(" WHERE FALSE") for statement in PAST]
    whole += [
        "UPDATE buffer.transaction SET amount_minor = amount_minor + 1",
        "UPDATE buffer.transaction SET recorded_at = now()",
        "UPDATE buffer.batch SET source = 'x'",
        "UPDATE buffer.hold SET payee_wallet_id = payer_wallet_id",
        "UPDATE buffer.audit_line SET by = 'x'",
        "DELETE FROM buffer.audit_line",
    ]

    refused = {statement: refusal(roles.of(role), statement) for statement in [*PAST, *whole]}

    assert set(refused.values()) == {"42501"}
    with roles.owner.connect() as connection:
        after = connection.execute(text("SELECT * FROM buffer.transaction ORDER BY transaction_id")).all()
    assert after == before


def test_releaser_can_write_only_earnings(roles: Books) -> None:
    """Every other type of transaction needs a column that a releaser may not write."""
    line = (
        "INSERT INTO buffer.transaction (type, from_account, to_account, to_wallet_id, currency,"
        " amount_minor, balance_after_minor, recorded_at, {extra})"
        " VALUES ('{type}', '{source}', 'BALANCE', 1, 'PHP', 1, 1, now(), {value})"
    )
    work = {
        "a deposit": line.format(type="DEPOSIT", source="EXTERNAL", extra="reference", value="'in-1'"),
        "an opening balance": line.format(
            type="OPENING_BALANCE", source="OPENING", extra="reference", value="'in-1'"
        ),
        "a refund": line.format(type="REFUND", source="PENDING_EARNINGS", extra="backjob_id", value="1"),
        "a hold": "INSERT INTO buffer.hold (reference) VALUES ('x')",
        "an unfreezing": "UPDATE buffer.unsettled_hold SET state = 'BUFFERED'",
        "an earlier date": "UPDATE buffer.unsettled_hold SET release_date = now()",
        "a larger amount": "UPDATE buffer.unsettled_hold SET amount_minor = amount_minor + 1",
    }

    refused = {what: refusal(roles.releaser, statement) for what, statement in work.items()}

    assert refused == dict.fromkeys(work, "42501")
    # Only through the column privileges: without that column, a CHECK refuses the line.
    assert refusal(roles.releaser, line.format(type="DEPOSIT", source="EXTERNAL", extra="hold_id", value="1"))


def test_payouts_can_write_only_lines_of_payouts(roles: Books) -> None:
    """Every other type of transaction needs a column that it may not write."""
    line = (
        "INSERT INTO buffer.transaction (type, from_account, to_account, to_wallet_id, currency,"
        " amount_minor, balance_after_minor, recorded_at, {extra})"
        " VALUES ('{type}', '{source}', 'BALANCE', 1, 'PHP', 1, 1, now(), {value})"
    )
    work = {
        "a deposit": line.format(type="DEPOSIT", source="EXTERNAL", extra="reference", value="'in-1'"),
        "a refund": line.format(type="REFUND", source="PENDING_EARNINGS", extra="backjob_id", value="1"),
        "an earning": line.format(type="EARNING", source="PENDING_EARNINGS", extra="hold_id", value="1"),
        "a hold": "INSERT INTO buffer.hold (reference) VALUES ('x')",
        "a release": "DELETE FROM buffer.unsettled_hold",
        "a destination": "INSERT INTO buffer.payout_destination (owner) VALUES ('x')",
        "an amount": "UPDATE buffer.payout SET amount_minor = 1",
        "another maker": "UPDATE buffer.payout_batch SET made_by = 'x'",
        "no four eyes": "UPDATE buffer.payout_batch SET four_eyes = FALSE",
        "a pending earning": "UPDATE buffer.wallet SET pending_earnings_minor = 0",
    }

    refused = {what: refusal(roles.payouts, statement) for what, statement in work.items()}

    assert refused == dict.fromkeys(work, "42501")
    assert refusal(
        roles.payouts, line.format(type="DEPOSIT", source="EXTERNAL", extra="payout_id", value="1")
    )


def test_only_the_payouts_role_reads_an_account(roles: Books) -> None:
    """The platform adds it and cannot read it back; it cannot send, and cannot date a destination back."""
    reads = "SELECT account FROM buffer.payout_destination"
    sends = "UPDATE buffer.payout_batch SET state = 'SENT', sent_by = 'x', sent_at = now()"
    old = (
        "INSERT INTO buffer.payout_destination"
        " (owner, version, method, account, masked, set_by, reason, set_at)"
        " VALUES ('worker-17', 1, 'TOKEN', 'acct', '****', 'shop', 'new', now() - interval '{}')"
    )

    assert {role: refusal(roles.of(role), reads) for role in ROLES} == {
        "platform": "42501",
        "releaser": "42501",
        "reader": "42501",
        "payouts": "",
        "api": "42501",
    }
    assert refusal(roles.platform, sends) == "42501"
    assert refusal(roles.platform, "INSERT INTO buffer.payout_batch (currency) VALUES ('PHP')") == "42501"
    assert refusal(roles.releaser, "INSERT INTO buffer.payout (currency) VALUES ('PHP')") == "42501"
    assert refusal(roles.platform, old.format("0 hours")) == ""
    assert refusal(roles.platform, old.format("2 hours")) == "42501"


def test_reader_cannot_mark_an_hour(roles: Books) -> None:
    """Only writers mark an hour, because a count waits for the mark."""
    statement = "SELECT buffer.enter_hour(now())"

    assert [refusal(roles.of(role), statement) for role in ROLES] == ["", "", "42501", "", "42501"]


def test_reader_cannot_call_the_running_sum(roles: Books) -> None:
    """Only writers need the sum for a running balance."""
    statement = "SELECT buffer.sum_minor(amount_minor) FROM (VALUES (1::bigint)) AS held (amount_minor)"

    assert [refusal(roles.of(role), statement) for role in ROLES] == ["", "", "42501", "", "42501"]


def test_public_has_no_privileges(roles: Books, served: EmbeddedServer) -> None:
    """A login without a role cannot read anything."""
    admin = make_engine(served.url("postgres", user="postgres"))
    with admin.begin() as connection:
        connection.execute(text("DROP ROLE IF EXISTS nobody"))
        connection.execute(text("CREATE ROLE nobody LOGIN"))
    admin.dispose()
    nobody = make_engine(roles.owner.url.set(username="nobody"))
    public = text(
        "SELECT relname FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'buffer'::regnamespace"
        " AND grantee = 0 UNION ALL"
        " SELECT proname FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))"
        " WHERE pronamespace = 'buffer'::regnamespace AND grantee = 0"
    )

    refused = {table: refusal(nobody, f"SELECT FROM buffer.{table}") for table in TABLES}

    assert set(refused.values()) == {"42501"}
    with roles.owner.connect() as connection:
        assert connection.scalars(public).all() == []
    nobody.dispose()
