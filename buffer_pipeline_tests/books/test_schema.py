"""Migrations and metadata agree, and books of older versions are migrated."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from iso4217 import Currency
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateSchema

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import REVISION, books_revision, make_engine, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.hold import HoldState
from buffer_pipeline.rules import list_rules
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import SCHEMA, metadata
from buffer_pipeline_tests.schema import PAGE, generated
from buffer_pipeline_tests.support.builders import NOON, WAIT_SECONDS_MAX, books, place_hold
from buffer_pipeline_tests.support.rules import FEE, SELLER, add, assign

# What makes up the tables, a row a thing; Alembic's own table is none of the books.
CATALOGS: Final = {
    "columns": """
        SELECT relname, row_number() OVER (PARTITION BY attrelid ORDER BY attnum), attname,
          format_type(atttypid, atttypmod), attnotnull, attidentity,
          attgenerated, pg_get_expr(adbin, adrelid)
        FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'buffer'::regnamespace AND relkind = 'r' AND attnum > 0
          AND NOT attisdropped AND relname <> 'alembic_version'
        ORDER BY relname, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE connamespace = 'buffer'::regnamespace
          AND conrelid <> coalesce(to_regclass('buffer.alembic_version'), 0)
        ORDER BY 1, 2""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'buffer' AND tablename <> 'alembic_version' ORDER BY 1, 2""",
    "storage": """
        SELECT relname, reloptions FROM pg_class
        WHERE relnamespace = 'buffer'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
        ORDER BY 1""",
}


def catalogs(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Return CATALOGS' answers."""
    with engine.connect() as connection:
        return {
            name: [tuple(row) for row in connection.execute(text(query))] for name, query in CATALOGS.items()
        }


@pytest.fixture
def empty_engine(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on a database with nothing in it."""
    name = f"empty_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres")).execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} OWNER buffer"))
    engine = make_engine(server.url(name))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


def what_stands(engine: Engine) -> list[str]:
    """Return the names of the schema's tables, functions, sequences and types."""
    with engine.connect() as connection:
        return list(
            connection.scalars(
                text(
                    "SELECT relname::text FROM pg_class"
                    " WHERE relnamespace = 'buffer'::regnamespace AND relkind <> 'i'"
                    " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'buffer'::regnamespace"
                    " UNION ALL SELECT typname FROM pg_type"
                    " WHERE typnamespace = 'buffer'::regnamespace AND typtype IN ('e', 'd')"
                    " ORDER BY 1"
                )
            )
        )


def test_server_is_the_one_that_was_asked_for(connection: Connection, pytestconfig: pytest.Config) -> None:
    """With `--postgresql=15` the session's server is a 15, else an 18."""
    version = connection.scalar(text("SHOW server_version"))

    assert str(version).partition(".")[0] == pytestconfig.getoption("postgresql")


def test_migrations_build_what_the_tables_say(engine: Engine, empty_engine: Engine) -> None:
    """Migrated from empty and created from the metadata, the catalogs are the same."""
    with empty_engine.begin() as connection:
        connection.execute(CreateSchema(SCHEMA))
        metadata.create_all(connection)

    migrated, created = catalogs(engine), catalogs(empty_engine)

    assert {row[0] for row in migrated["storage"]} == {table.name for table in metadata.sorted_tables}
    for name in CATALOGS:
        assert migrated[name] == created[name]


def test_books_go_down_and_up_again(empty_engine: Engine) -> None:
    """Down to base leaves nothing but Alembic's own table, and from there up is the same again."""
    migrate(empty_engine)
    first = catalogs(empty_engine)
    stood = what_stands(empty_engine)

    migrate(empty_engine, "base")

    assert what_stands(empty_engine) == ["alembic_version"]
    assert books_revision(empty_engine) is None
    migrate(empty_engine)
    assert catalogs(empty_engine) == first
    assert what_stands(empty_engine) == stood


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    """Books that are up to date stay as they are, with what is in them."""
    with engine.begin() as connection:
        place_hold(connection)
        before = books(connection)

    migrate(engine)

    with engine.connect() as connection:
        assert books(connection) == before
    assert books_revision(engine) == REVISION


def test_two_who_migrate_at_once_both_get_there(empty_engine: Engine) -> None:
    """Of two processes that start together the second finds the work done."""
    start = (
        "import sys; from buffer_pipeline.database import make_engine, migrate;"
        " migrate(make_engine(sys.argv[1]))"
    )
    url = empty_engine.url.render_as_string(hide_password=False)

    processes = [subprocess.Popen([sys.executable, "-c", start, url]) for _ in range(2)]

    assert [process.wait(timeout=WAIT_SECONDS_MAX) for process in processes] == [0, 0]
    assert books_revision(empty_engine) == REVISION


def test_code_names_the_newest_migration() -> None:
    """The revision that the code asks for is the one head of the migrations."""
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")

    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_empty_database_has_no_revision(empty_engine: Engine) -> None:
    """A database without books is reported instead of failing."""
    assert books_revision(empty_engine) is None


HOLDS_OF_0003: Final = """
INSERT INTO buffer.wallet (owner, currency, balance_minor, pending_earnings_minor)
VALUES ('worker-17', 'PHP', 700, 2000), ('client-3', 'PHP', 1300, 0);
INSERT INTO buffer.hold (
  reference, job, payee_wallet_id, payer_wallet_id, currency, amount_minor, refunded_minor, state,
  held_at, original_release_date, release_date, settled_at
)
SELECT
  state, 'job-' || state, 1, 2, 'PHP', 1000, refunded_minor, state, timestamptz '2026-03-01 12:00Z',
  timestamptz '2026-03-08 12:00Z', timestamptz '2026-03-09 12:00Z', settled_at
FROM (VALUES
  ('BUFFERED', 0, NULL), ('FROZEN', 0, NULL),
  ('RELEASED', 300, timestamptz '2026-03-09 13:00Z'), ('REFUNDED', 1000, timestamptz '2026-03-02 13:00Z')
) AS hold (state, refunded_minor, settled_at);
INSERT INTO buffer.backjob (
  job, state, requested_by, reason, requested_at, decided_by, decision_reason, decided_at, refunded_minor
)
SELECT job, 'REJECTED', 'client-3', 'hm', held_at, 'admin-1', 'ok', held_at, NULL
FROM buffer.hold
UNION ALL
SELECT job, 'APPROVED', 'client-3', 'hm', held_at, 'admin-1', 'ok', settled_at, refunded_minor
FROM buffer.hold WHERE refunded_minor > 0;
INSERT INTO buffer.hold_freeze (
  hold_id, kind, backjob_id, opened_by, reason, opened_at, closed_by, closing_reason, closed_at
)
SELECT hold_id, 'BACKJOB', backjob_id, 'client-3', 'hm', held_at, 'admin-1', 'ok', decided_at
FROM buffer.hold INNER JOIN buffer.backjob USING (job)
UNION ALL
SELECT hold_id, 'RISK', NULL, 'admin-1', 'hm', held_at, NULL, NULL, NULL
FROM buffer.hold WHERE state = 'FROZEN';
INSERT INTO buffer.batch (kind, source, due_by, recorded_at)
VALUES ('DUE', 'x', timestamptz '2026-03-09 13:00Z', timestamptz '2026-03-09 13:00Z');
INSERT INTO buffer.transaction (
  type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor, balance_after_minor,
  hold_id, backjob_id, batch_id, recorded_at
)
SELECT
  'PENDING_EARNING', 'ESCROW', CAST(NULL AS bigint), 'PENDING_EARNINGS', 1, 'PHP', 1000, CAST(NULL AS bigint),
  hold_id, CAST(NULL AS bigint), CAST(NULL AS bigint), held_at
FROM buffer.hold
UNION ALL
SELECT
  'REFUND', 'PENDING_EARNINGS', 1, 'BALANCE', 2, 'PHP', refunded_minor,
  CAST(sum(refunded_minor) OVER (ORDER BY hold_id) AS bigint), hold_id, backjob_id, NULL, settled_at
FROM buffer.hold INNER JOIN buffer.backjob USING (job, refunded_minor)
UNION ALL
SELECT
  'EARNING', 'PENDING_EARNINGS', 1, 'BALANCE', 1, 'PHP', 700, 700, hold_id, NULL, 1, settled_at
FROM buffer.hold WHERE state = 'RELEASED'
"""


def test_currencies_are_migrated_with_their_places(empty_engine: Engine) -> None:
    """Revision 0011 stores the places of what the books have, also of what the installed list lacks."""
    migrate(empty_engine, "0010")
    with empty_engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO buffer.wallet (owner, currency)"
                " SELECT owner, currency FROM unnest(ARRAY['worker-17', 'client-3']) AS owner,"
                " unnest(ARRAY['PHP', 'JPY', 'KWD', 'BGN', 'ANG', 'HRK', 'BYR']) AS currency"
            )
        )

    migrate(empty_engine)

    with empty_engine.connect() as connection:
        assert places_of(connection) == {
            "ANG": 2, "BGN": 2, "BYR": 0, "HRK": 2, "JPY": 0, "KWD": 3, "PHP": 2
        }  # fmt: skip


def test_a_currency_of_no_list_stops_the_migration(empty_engine: Engine) -> None:
    """Nobody knows what its amounts are, so nobody guesses; nothing is migrated."""
    migrate(empty_engine, "0010")
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO buffer.wallet (owner, currency) VALUES ('worker-17', 'QQQ')"))

    with pytest.raises(PaymentBufferError, match=r"^currency 'QQQ': is in the books"):
        migrate(empty_engine)

    assert books_revision(empty_engine) == "0010"


def test_what_older_versions_allowed_stops_no_migration(empty_engine: Engine) -> None:
    """Two hosts' clocks closed a freeze before its opening: that row stays, and no other can be like it."""
    freeze = (
        "INSERT INTO buffer.hold_freeze"
        " (hold_id, kind, opened_by, reason, opened_at, closed_by, closing_reason, closed_at)"
        " VALUES (1, 'RISK', 'admin-1', 'a look', :now, 'admin-1', 'fine', :now - interval '20 ms')"
    )
    migrate(empty_engine, "0012")
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO buffer.currency VALUES ('PHP', 2)"))
        connection.execute(
            text(
                "INSERT INTO buffer.wallet (owner, currency) VALUES ('worker-17', 'PHP'), ('client-3', 'PHP')"
            )
        )
        connection.execute(
            text(
                "INSERT INTO buffer.hold (reference, job, payee_wallet_id, payer_wallet_id, currency,"
                " amount_minor, held_at, original_release_date)"
                " VALUES ('earning-1', 'job-8', 1, 2, 'PHP', 5, :now, :now)"
            ),
            {"now": NOON},
        )
        connection.execute(text(freeze), {"now": NOON})

    migrate(empty_engine)

    assert books_revision(empty_engine) == REVISION
    with (
        pytest.raises(IntegrityError, match="hold_freeze_closed_after_opening"),
        empty_engine.begin() as connection,
    ):
        connection.execute(text(freeze), {"now": NOON})


def test_the_migrations_places_are_those_of_the_list() -> None:
    """Every currency that the installed list has too has the same places in it."""
    by_places = import_module("buffer_pipeline.migrations.versions.0011_currencies").BY_PLACES
    of_migration = {code: places for places, codes in by_places.items() for code in codes.split()}
    listed = {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}

    both = of_migration.keys() & listed.keys()

    assert len(both) > 160
    assert {code: of_migration[code] for code in both} == {code: listed[code] for code in both}
    assert {"ANG", "BGN", "HRK"} <= of_migration.keys()


def test_holds_are_migrated_up_and_down_unchanged(empty_engine: Engine) -> None:
    """Revision 0004 splits each hold from its state, whatever that is, and its downgrade joins them."""
    columns = "hold_id, reference, amount_minor, refunded_minor, state, held_at, release_date, settled_at"
    migrate(empty_engine, "0003")
    with empty_engine.begin() as connection:
        connection.execute(text(HOLDS_OF_0003))
        before = connection.execute(text(f"SELECT {columns} FROM buffer.hold ORDER BY hold_id")).all()

    migrate(empty_engine)

    with empty_engine.connect() as connection:
        after = connection.execute(text(f"SELECT {columns} FROM buffer.hold_status ORDER BY hold_id")).all()
        waiting = connection.scalars(text("SELECT state FROM buffer.unsettled_hold ORDER BY hold_id")).all()
        assert reconcile(connection) == []
    assert after == before
    assert {row.state for row in before} == set(HoldState)
    assert waiting == ["BUFFERED", "FROZEN"]
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")
    with empty_engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    with empty_engine.connect() as connection:
        assert connection.execute(text(f"SELECT {columns} FROM buffer.hold ORDER BY hold_id")).all() == before


def test_rules_go_down_without_the_holds_that_have_them(empty_engine: Engine) -> None:
    """Revision 0019 keeps older holds without a rule; its downgrade leaves every hold as it was."""
    columns = "hold_id, reference, amount_minor, state, held_at, release_date"
    migrate(empty_engine)
    with empty_engine.begin() as connection:
        place_hold(connection, state=HoldState.FROZEN)
        add(connection, **FEE)
        assign(connection)
        # All of it is the payee's: an older revision knows no shares.
        place_hold(connection, rule=SELLER, shares=[Share(kind=ShareKind.PAYEE)])
        before = connection.execute(text(f"SELECT {columns} FROM buffer.hold_status ORDER BY hold_id")).all()
    config = Config()
    config.set_main_option("script_location", "buffer_pipeline:migrations")

    with empty_engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0015")

    with empty_engine.connect() as connection:
        after = connection.execute(text(f"SELECT {columns} FROM buffer.hold_status ORDER BY hold_id")).all()
        assert (after, len(after)) == (before, 2)
        assert connection.scalar(text("SELECT to_regclass('buffer.hold_rule')")) is None
    migrate(empty_engine)
    with empty_engine.connect() as connection:
        rules = connection.scalars(text("SELECT rule_id FROM buffer.hold_status")).all()
        assert (rules, list_rules(connection)[1:]) == ([None, None], [])


def test_the_page_of_the_schema_is_what_the_migrations_make() -> None:
    """`uv run python -m buffer_pipeline_tests.schema` has written it since the last migration."""
    assert PAGE.read_text(encoding="utf-8") == generated()
