"""The mark of a sandbox: empty books get it once, real books and roles cannot, and nothing removes it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import database_clock, make_engine, migrate, server_clock
from buffer_pipeline.errors import ClockRefused, InvalidInput
from buffer_pipeline.hours import clock_of_a_writer, enter_hour
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline.release import release_early
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.sandbox.clock import find_clock, start_clock
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import NOON, place_hold
from buffer_pipeline_tests.support.databases import ROLES, Books
from buffer_pipeline_tests.support.sandboxes import NEW_YEAR, clock_of, policies_by, started

MARK: Final = (
    "INSERT INTO buffer.sandbox (sandbox_id, now, worked_until, daily_payouts)"
    " VALUES (1, timestamptz '2026-01-01 00:00Z', timestamptz '2026-01-01 00:00Z', FALSE)"
)


def sqlstate_of(engine: Engine, statement: str) -> str:
    """Run a statement and roll it back; return the SQLSTATE of its refusal, "" if it was accepted."""
    with engine.connect() as connection:
        try:
            connection.execute(text(statement))
        except DBAPIError as error:
            return str(getattr(error.orig, "sqlstate", ""))
    return ""


def test_empty_books_become_a_sandbox(engine: Engine) -> None:
    """All that reads the clock of the books reads the sandbox's; the server's is as it was."""
    started(engine)

    with engine.begin() as connection:
        assert database_clock(connection) == NEW_YEAR
        assert clock_of_a_writer(connection) == NEW_YEAR
        assert abs(server_clock(connection) - datetime.now(UTC)) < timedelta(days=1)
    assert clock_of(engine).worked_until == NEW_YEAR.replace(minute=0)


def test_real_books_have_the_clock_of_the_server(engine: Engine) -> None:
    """Without the mark, both are the same, and no policy asks for a sandbox."""
    with engine.begin() as connection:
        before, now, after = (
            server_clock(connection),
            database_clock(connection),
            server_clock(connection),
        )
        assert find_clock(connection) is None

    assert before < now < after
    assert policies_by(engine, "buffer.clock") == []
    assert len(policies_by(engine, "clock_timestamp()")) > 10


def held(connection: Connection) -> None:
    """Hold an earning."""
    place_hold(connection)


def released(connection: Connection) -> None:
    """Hold an earning and release it, so that nothing waits any more."""
    hold_id = place_hold(connection)
    release_early(connection, hold_id=hold_id, by="client-3", reason="well done", now=NOON)


def deposited(connection: Connection) -> None:
    """Put money in a balance."""
    deposit(connection, owner="client-3", amount="1.00", currency="PHP", reference="first", now=NOON)


def known(connection: Connection) -> None:
    """Know an owner's language, and nothing else."""
    set_contact(connection, owner="worker-17", locale="fil_PH", now=NOON)


@pytest.mark.parametrize(
    ("filled", "named"),
    [(held, "hold"), (released, "transaction"), (deposited, "wallet"), (known, "contact")],
)
def test_books_that_hold_anything_cannot_get_the_mark(
    engine: Engine, filled: Callable[[Connection], None], named: str
) -> None:
    """Neither by the verb nor by the owner's own SQL; the refusal names what is there."""
    with engine.begin() as connection:
        filled(connection)

    with pytest.raises(ClockRefused, match=rf"^books: not empty \(.*\b{named}\b.*\); a sandbox needs"):
        started(engine)

    assert sqlstate_of(engine, MARK) == "55000"
    with engine.connect() as connection:
        assert find_clock(connection) is None
    assert policies_by(engine, "buffer.clock") == []


def test_superuser_cannot_mark_real_books_either(engine: Engine, superuser_url: str) -> None:
    """The trigger asks nobody who they are."""
    with engine.begin() as connection:
        place_hold(connection)
    admin = make_engine(superuser_url)

    assert sqlstate_of(admin, MARK) == "55000"
    admin.dispose()


def test_no_role_can_mark_or_unmark_books(roles: Books) -> None:
    """Of the roles, only a releaser may change a sandbox's clock, and none may make or remove one."""
    statements = {
        "mark": MARK,
        "remove": "DELETE FROM buffer.sandbox",
        "truncate": "TRUNCATE buffer.sandbox",
        "follow": "SELECT buffer.follow_the_sandbox()",
        "check": "SELECT buffer.mark_only_empty_books()",
    }

    found = {
        (role, name): sqlstate_of(roles.of(role), statement)
        for role in ROLES
        for name, statement in statements.items()
    }

    assert set(found.values()) == {"42501"}
    assert {
        role: sqlstate_of(roles.of(role), "UPDATE buffer.sandbox SET now = now") for role in ROLES
    } == dict.fromkeys(ROLES, "42501") | {"releaser": ""}
    assert {role: sqlstate_of(roles.of(role), "SELECT buffer.clock()") for role in ROLES} == dict.fromkeys(
        ROLES, ""
    )


def test_what_is_committed_is_seen_in_every_isolation(engine: Engine) -> None:
    """A transaction whose snapshot is older than the first hold cannot mark the books."""
    old = engine.execution_options(isolation_level="REPEATABLE READ")
    with old.connect() as late:
        late.execute(text("SELECT count(*) FROM buffer.hold"))
        with engine.begin() as connection:
            place_hold(connection)

        with pytest.raises(ClockRefused, match="READ COMMITTED"):
            start_clock(late, now=NEW_YEAR)


def test_no_mark_while_somebody_writes(engine: Engine) -> None:
    """Neither beside an uncommitted deposit, nor beside a writer who has only marked an hour."""
    with engine.connect() as writer:
        deposited(writer)
        with pytest.raises(ClockRefused, match="somebody is writing into them"):
            started(engine)
    with engine.connect() as writer:
        enter_hour(writer, now=NOON)
        with pytest.raises(ClockRefused, match="somebody is writing into them"):
            started(engine)

    started(engine)


def test_mark_stays(engine: Engine, superuser_url: str) -> None:
    """It is not removed, and its time does not go back, not even by a superuser."""
    started(engine)
    admin = make_engine(superuser_url)

    with pytest.raises(ClockRefused, match="a sandbox already"):
        started(engine)

    refused = {
        statement: sqlstate_of(admin, statement)
        for statement in (
            "DELETE FROM buffer.sandbox",
            "TRUNCATE buffer.sandbox",
            "UPDATE buffer.sandbox SET now = now - interval '1 microsecond'",
            "UPDATE buffer.sandbox SET worked_until = worked_until - interval '1 hour'",
            MARK.replace("(1,", "(2,"),
        )
    }
    admin.dispose()
    assert "" not in refused.values()


@pytest.mark.parametrize("year", [1999, 2900])
def test_roles_work_by_the_clock_of_the_sandbox(roles: Books, year: int) -> None:
    """Row-level security compares with it: what a releaser may release is what is due there."""
    now = datetime(year, 3, 2, 12, tzinfo=UTC)
    started(roles.owner, now - timedelta(days=7))
    with roles.platform.begin() as connection:
        place_hold(connection, held_at=now - timedelta(days=7))
        with pytest.raises(InvalidInput, match="more than a day after the database's clock"):
            enter_hour(connection, now=now)

    with roles.releaser.connect() as connection:
        early = connection.execute(text("DELETE FROM buffer.unsettled_hold")).rowcount
    with roles.releaser.begin() as connection:
        connection.execute(text("UPDATE buffer.sandbox SET now = :now"), {"now": now})
    late = release_all_due(roles.releaser, due_by=now, source="test").holds_released

    assert (early, late) == (0, 1)
    assert policies_by(roles.owner, "clock_timestamp()") == []


def test_policies_of_later_migrations_follow_too(engine: Engine) -> None:
    """After a migration, and not in real books."""
    policy = "CREATE POLICY later ON buffer.audit_line FOR UPDATE USING (at <= clock_timestamp())"
    started(engine)
    with engine.begin() as connection:
        connection.execute(text(policy))

    migrate(engine)

    assert policies_by(engine, "clock_timestamp()") == []


@pytest.mark.parametrize(
    "wrong",
    [
        NEW_YEAR.replace(tzinfo=None),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(3000, 1, 1, tzinfo=UTC),
    ],
)
def test_wrong_times_are_refused(engine: Engine, wrong: Any) -> None:
    """Without a zone, or outside the years."""
    with pytest.raises(InvalidInput, match=r"^clock "):
        started(engine, wrong)

    with engine.connect() as connection:
        assert find_clock(connection) is None
