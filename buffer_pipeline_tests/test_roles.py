"""Four roles with the least that each needs: what they may do works, and everything else is refused."""

import re
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.cli import main
from buffer_pipeline.contact import set_contact
from buffer_pipeline.database import (
    make_engine,
    statement_text,
)
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.reconcile import reconcile
from buffer_pipeline.tables import metadata
from buffer_pipeline_tests.builders import ADMIN, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.conftest import NOON, ROLES, Books
from buffer_pipeline_tests.schema import PAGE
from buffer_pipeline_tests.work_of_roles import do_all, earnings_come_in

ROOT: Final = Path(__file__).parents[1]
SQL: Final = ROOT / "buffer_pipeline" / "sql"


def statements() -> dict[str, str]:
    """Return the text of every statement in sql/, as the driver gets it, and its name."""
    paths = set(SQL.rglob("*.sql")) - {PAGE}
    names = [path.relative_to(SQL).with_suffix("").as_posix() for path in paths]
    dialect = make_engine("postgresql://nobody@localhost/none").dialect
    return {str(text(statement_text(name)).compile(dialect=dialect)): name for name in names}


def test_each_role_can_do_its_work(roles: Books) -> None:
    """Every statement there is runs under the role whose work it is, and the books are sound."""
    known = statements()
    ran = set()
    for role in ROLES:

        @event.listens_for(roles.of(role), "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            ran.add(known.get(statement))

    do_all(roles)

    # What hours count is fetched by the driver's own cursor, which this does not see; two read Dagster's
    # storage and not the books.
    assert sorted(set(known.values()) - ran) == [
        "counts/movements",
        "metrics/dagster_checks",
        "metrics/dagster_runs",
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
"""The page's words for what may be done to a table's rows."""


def documented(engine: Engine) -> set[tuple[str, str, str, str]]:
    """Return (role, privilege, table, column) for all that the table of docs/roles.md allows."""
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
    """Return the SQLSTATE with which a statement is refused, "" when it is not; nothing stays of it.

    "trigger" where the privilege was there, and only a trigger behind it refused.
    """
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            if "kept as they were written" in str(error.orig):
                return "trigger"
            return str(getattr(error.orig, "sqlstate", error))
        return ""


def test_each_role_may_do_what_the_page_says_and_no_more(roles: Books) -> None:
    """Each statement on each column of each table is accepted or refused as docs/roles.md has it."""
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
                    continue  # PostgreSQL refuses it for what the view is, before it asks who.
                what = (role, privilege, table, column)
                expected[what] = "" if what in allowed else "42501"
                found[what] = refusal(roles.of(role), statement)

    # What no one can do, whoever it is: give a computed column, write to a view of several tables.
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
    # The GRANT alone is a warning, and gives nothing.
    "GRANT UPDATE ON buffer.transaction TO CURRENT_USER; UPDATE buffer.transaction SET reference = NULL",
    "DROP SCHEMA buffer CASCADE",
    "CREATE SCHEMA extra",
    "CREATE ROLE extra",
    "COPY buffer.transaction TO PROGRAM 'true'",
]


@pytest.mark.parametrize("role", ROLES)
def test_nobody_but_the_owner_reaches_what_stands_around_the_rows(roles: Books, role: str) -> None:
    """Emptying tables, their triggers and functions, ids, other roles: no role gets at any of them."""
    refused = {statement: refusal(roles.of(role), statement) for statement in NOBODYS}

    assert {statement: code for statement, code in refused.items() if code != "42501"} == {}


PAST: Final = [
    f"{change} WHERE FALSE"
    for table in ("transaction", "batch", "hold", "wallet", "backjob", "hold_freeze")
    for change in (f"DELETE FROM buffer.{table}", f"UPDATE buffer.{table} SET {table}_id = DEFAULT")
    if (table, change.split()[0]) != ("hold_freeze", "UPDATE")
]


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_touch_the_past(roles: Books, role: str) -> None:
    """What was written is neither changed nor deleted by anybody, not even without a row to change."""
    earnings_come_in(roles.platform)
    with roles.owner.connect() as connection:
        before = connection.execute(text("SELECT * FROM buffer.transaction ORDER BY transaction_id")).all()
    whole = [statement.removesuffix(" WHERE FALSE") for statement in PAST]
    whole += [
        "UPDATE buffer.transaction SET amount_minor = amount_minor + 1",
        "UPDATE buffer.transaction SET recorded_at = now()",
        "UPDATE buffer.batch SET source = 'x'",
        "UPDATE buffer.hold SET payee_wallet_id = payer_wallet_id",
    ]

    refused = {statement: refusal(roles.of(role), statement) for statement in [*PAST, *whole]}

    assert set(refused.values()) == {"42501"}
    with roles.owner.connect() as connection:
        after = connection.execute(text("SELECT * FROM buffer.transaction ORDER BY transaction_id")).all()
    assert after == before


def test_a_releaser_brings_no_money_in_and_takes_none_out(roles: Books) -> None:
    """Of all lines a releaser may write an EARNING only: the others need what it may not give."""
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
    # By the column list alone: without what it may not give, a CHECK refuses the line.
    assert refusal(roles.releaser, line.format(type="DEPOSIT", source="EXTERNAL", extra="hold_id", value="1"))


def test_a_reader_marks_no_hour(roles: Books) -> None:
    """To mark an hour as being written is a writer's, since a count waits for it."""
    statement = "SELECT buffer.enter_hour(now())"

    assert [refusal(roles.of(role), statement) for role in ROLES] == ["", "", "42501"]


def test_a_reader_adds_nothing_up(roles: Books) -> None:
    """The sum behind a running balance is for those who write one."""
    statement = "SELECT buffer.sum_minor(amount_minor) FROM (VALUES (1::bigint)) AS held (amount_minor)"

    assert [refusal(roles.of(role), statement) for role in ROLES] == ["", "", "42501"]


def test_everybody_has_nothing(roles: Books, served: EmbeddedServer) -> None:
    """A login that is a member of nothing cannot so much as look."""
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


COMMANDS: Final = {
    "reader": [
        ("report",),
        ("reconcile",),
        ("hold", "list"),
        ("hold", "show", "1"),
        ("backjob", "list"),
        ("wallet", "show", PAYEE),
        ("wallet", "statement", PAYEE),
        ("stuck",),
    ],
    "releaser": [
        ("release",),
        ("notifications", "drain"),
        ("notifications", "list"),
        ("contact", "show", PAYEE),
        ("report",),
        ("reconcile",),
        ("hold", "list"),
        ("stuck",),
    ],
    "platform": [
        ("wallet", "deposit", PAYER, "--amount", "1.00", "--currency", "PHP", "--reference", "in-2"),
        ("freeze", "1", "--kind", "risk", "--by", ADMIN, "--reason", "a look"),
        ("contact", "show", PAYEE),
        ("hold", "list"),
        ("reconcile",),
    ],
}
"""What docs/roles.md has each role's login do on the command line."""


@pytest.mark.parametrize("role", ROLES)
def test_commands_do_what_their_login_may(
    roles: Books, role: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command of a role's work ends well under its login, and one of another's with a refusal."""
    with roles.owner.begin() as connection:
        place_hold(connection)
        set_contact(connection, owner=PAYEE, locale="en_PH", now=NOON)
        place_hold(connection, state=HoldState.FROZEN)
    monkeypatch.setenv("BUFFER_DATABASE_URL", roles.of(role).url.render_as_string(hide_password=False))
    # A command handles signals for its process, which here is the tests' own.
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def code_of(*arguments: str) -> int:
        with pytest.raises(SystemExit) as stopped:
            main(list(arguments))
        assert isinstance(stopped.value.code, int)
        return stopped.value.code

    codes = {arguments: code_of(*arguments) for arguments in COMMANDS[role]}
    capsys.readouterr()
    strange: tuple[str, ...] = (
        "wallet",
        "deposit",
        PAYER,
        "--amount",
        "1.00",
        "--currency",
        "PHP",
        "--reference",
        "in-3",
    )
    if role == "platform":
        strange = ("notifications", "drain")
    refused = code_of(*strange)

    assert codes == dict.fromkeys(COMMANDS[role], 0)
    assert refused == 1
    assert "permission denied" in capsys.readouterr().err
