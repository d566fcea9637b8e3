"""A connection breaks between COMMIT and its answer, and the caller sends the call again."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.errors import PayoutRefused, Refused
from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.release import release_early
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYER, books, open_freezes, place_hold
from buffer_pipeline_tests.support.crasher import BATCH_LIMIT, drain
from buffer_pipeline_tests.support.crashes import HOLDS, EndState, end_of, engine_on, failure, released
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.money_books import make_ready
from buffer_pipeline_tests.support.money_verbs import MONEY, REFUSED_AGAIN
from buffer_pipeline_tests.support.processes import start
from buffer_pipeline_tests.support.proxy import cutting_proxy


def test_next_run_completes_a_release_whose_answer_was_lost(
    server: EmbeddedServer, due_books: str, undisturbed: EndState
) -> None:
    """The connection is cut at the answer to any COMMIT of a run. The run ends with an error, its committed
    batches remain, and after the next run the books are as after an undisturbed release.
    """
    left, cut_at, cuts = set(), 0, 1
    while cuts:
        cut_at += 1
        with fresh_books(server, due_books) as url, engine_on(url) as engine:
            with cutting_proxy(url, cut_at=cut_at) as (through, proxy), engine_on(through) as doomed:
                try:
                    drain(doomed)
                except OperationalError:
                    assert proxy.cuts == 1
                else:
                    assert proxy.cuts == 0
            cuts = proxy.cuts
            end_of(engine)
            left.add(released(engine))

            drain(engine)

            assert end_of(engine) == undisturbed, f"COMMIT {cut_at}"

    assert left == {0, BATCH_LIMIT, HOLDS}


NOW: Final = NOON + timedelta(days=1)


@pytest.mark.parametrize("verb", MONEY)
def test_payment_whose_answer_was_lost_is_replayed_by_its_reference(
    engine: Engine, database_url: str, verb: Callable[[Connection], Any]
) -> None:
    """Cut off after COMMIT, the caller repeats the call and gets the first result. Nothing is written."""
    with engine.begin() as connection:
        make_ready(connection)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        verb(connection)
    with engine.connect() as connection:
        before = books(connection)

    with engine.begin() as connection:
        again = verb(connection)

    assert again.replayed
    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


@pytest.mark.parametrize("verb", REFUSED_AGAIN)
def test_batch_or_file_whose_answer_was_lost_is_refused_the_second_time(
    engine: Engine, database_url: str, verb: Callable[[Connection], Any]
) -> None:
    """Cut off after COMMIT, the caller repeats the call. The first one counts and nothing is written."""
    with engine.begin() as connection:
        make_ready(connection)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        verb(connection)
    with engine.connect() as connection:
        before = books(connection)

    with pytest.raises(PayoutRefused), engine.begin() as connection:
        verb(connection)

    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


KEYED: Final[dict[str, Callable[..., Any]]] = {
    "request a backjob": lambda connection, **key: request_backjob(
        connection, job=JOB, by=PAYER, reason="it leaks", now=NOW, **key
    ),
    "reject": lambda connection, **key: reject_backjob(connection, **_decision(connection), **key),
    "approve": lambda connection, **key: approve_backjob(connection, **_decision(connection), **key),
    "approve a part": lambda connection, **key: approve_backjob(
        connection, **_decision(connection), amount="300.00", **key
    ),
    "withdraw the backjob": lambda connection, **key: withdraw_backjob(
        connection, **_decision(connection), **key
    ),
    "release early": lambda connection, **key: release_early(
        connection, hold_id=_first(connection, "hold"), by=PAYER, reason="well done", now=NOW, **key
    ),
    "unfreeze": lambda connection, **key: unfreeze_hold(
        connection, freeze_id=_first(connection, "hold_freeze"), by=ADMIN, reason="fine", now=NOW, **key
    ),
}
"""Verbs with an optional reference."""


def _first(connection: Connection, table: str) -> int:
    column = {"hold_freeze": "freeze_id"}.get(table, f"{table}_id")
    found: int = connection.execute(text(f"SELECT min({column}) FROM buffer.{table}")).scalar_one()
    return found


def _decision(connection: Connection) -> dict[str, Any]:
    return {"backjob_id": _first(connection, "backjob"), "by": ADMIN, "reason": "looked at", "now": NOW}


def make_ready_for(connection: Connection, name: str) -> None:
    """Write what the verb needs."""
    place_hold(connection, state=HoldState.FROZEN if name == "unfreeze" else HoldState.BUFFERED)
    if name in {"reject", "approve", "approve a part", "withdraw the backjob"}:
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)


@pytest.mark.parametrize("name", KEYED)
def test_decision_whose_answer_was_lost_is_refused_the_second_time(
    engine: Engine, database_url: str, name: str
) -> None:
    """Cut off after COMMIT, the caller repeats the call without a reference. The first decision counts and
    nothing is written.
    """
    with engine.begin() as connection:
        make_ready_for(connection, name)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        KEYED[name](connection)
    with engine.connect() as connection:
        before = books(connection)

    with pytest.raises(Refused), engine.begin() as connection:
        KEYED[name](connection)

    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


@pytest.mark.parametrize("name", [*KEYED, "freeze"])
def test_decision_with_a_reference_whose_answer_was_lost_is_replayed(
    engine: Engine, database_url: str, name: str
) -> None:
    """Cut off after COMMIT, the caller repeats the call with the same reference and gets the first result."""
    verb = KEYED.get(name, _freeze)
    with engine.begin() as connection:
        make_ready_for(connection, name)
    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        verb(connection, reference="key-1")
    with engine.connect() as connection:
        before = books(connection)

    with engine.begin() as connection:
        again = verb(connection, reference="key-1")

    assert again.replayed
    with engine.connect() as connection:
        assert books(connection) == before
        assert reconcile(connection) == []


def _freeze(connection: Connection, *, reference: str | None = None) -> Freeze:
    return freeze_hold(
        connection,
        hold_id=_first(connection, "hold"),
        kind=FreezeKind.RISK,
        by=ADMIN,
        reason="hm",
        now=NOW,
        reference=reference,
    )


def test_repeated_freeze_without_a_reference_is_a_second_freeze(engine: Engine, database_url: str) -> None:
    """Freezes stack. The caller has two freezes to close; no money has moved."""
    with engine.begin() as connection:
        hold_id = place_hold(connection)

    with (
        cutting_proxy(database_url, cut_at=1) as (through, _),
        engine_on(through) as cut_off,
        pytest.raises(OperationalError),
        cut_off.begin() as connection,
    ):
        _freeze(connection)
    with engine.begin() as connection:
        _freeze(connection)

    with engine.connect() as connection:
        assert open_freezes(connection, hold_id) == ["RISK", "RISK"]
        assert reconcile(connection) == []


def test_command_whose_answer_was_lost_ends_with_a_message(
    server: EmbeddedServer, due_books: str, undisturbed: EndState
) -> None:
    """The command ends with one line and exit code 1. The next one releases the rest."""
    with fresh_books(server, due_books) as url, engine_on(url) as engine:
        # The reads before the first batch end with a COMMIT too.
        with cutting_proxy(url, cut_at=2) as (through, proxy):
            code, line = failure(start("release", BUFFER_DATABASE_URL=through))
            assert proxy.cuts == 1

        drain(engine)

        assert (code, line.partition(":")[0]) == (1, "database")
        assert "closed the connection" in line
        assert end_of(engine) == undisturbed
