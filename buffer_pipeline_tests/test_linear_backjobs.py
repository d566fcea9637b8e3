"""What a verb on a job's holds costs grows as their number does, whatever the planner believes of them.

Counted are the rows that the server's plans visit, which a busy machine does not change.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.drain import drain_matured
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings
from buffer_pipeline.release import release_early
from buffer_pipeline_tests.builders import ADMIN, PAYER
from buffer_pipeline_tests.conftest import NOON

FEW: Final = 250
MANY: Final = 8 * FEW
SOON: Final = NOON + timedelta(hours=1)
DECISION: Final[dict[str, Any]] = {"by": ADMIN, "reason": "looked at", "now": SOON}


def _approve_a_part(connection: Connection, *, backjob_id: int, holds: int) -> object:
    return approve_backjob(connection, backjob_id=backjob_id, amount=holds, **DECISION)


def _decide(verb: Callable[..., object], connection: Connection, *, backjob_id: int, holds: int) -> object:  # noqa: ARG001 - as the others
    return verb(connection, backjob_id=backjob_id, **DECISION)


VERBS: Final[dict[str, Callable[..., object]]] = {
    "reject": partial(_decide, reject_backjob),
    "withdraw": partial(_decide, withdraw_backjob),
    "approve": partial(_decide, approve_backjob),
    "approve a part": _approve_a_part,
}


@pytest.fixture(params=["never analyzed", "analyzed behind a drain"])
def watched(
    engine: Engine, superuser_url: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Connection, list[Any]]]:
    """A connection to books whose statistics mislead, and the plans of all that ran on it."""
    if request.param == "analyzed behind a drain":
        with engine.begin() as connection:
            add_holds(connection, "job-before", 3_000)
        drain_matured(engine, due_by=NOON + timedelta(days=8), source="test")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
    found: list[Any] = []
    watching = make_engine(superuser_url)
    with watching.connect() as connection:
        for setting in (
            "LOAD 'auto_explain'",
            "SET auto_explain.log_min_duration = 0",
            "SET auto_explain.log_analyze = on",
            "SET auto_explain.log_format = json",
            "SET auto_explain.log_level = notice",
        ):
            connection.execute(text(setting))
        connection.commit()
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(
            lambda diagnostic: found.append(json.loads(diagnostic.message_primary.split("plan:\n", 1)[1]))
        )
        yield connection, found
        connection.rollback()
    watching.dispose()


def add_holds(connection: Connection, job: str, holds: int) -> list[int]:
    """Hold an earning of 10.00 for each of as many workers; return the holds' ids."""
    outcomes = add_many_pending_earnings(
        connection,
        [
            Earning(
                reference=f"{job}-{number}",
                job=job,
                payee=f"worker-{number}",
                payer=PAYER,
                amount="10.00",
                currency="PHP",
            )
            for number in range(holds)
        ],
        now=NOON,
    )
    return [outcome.hold_id for outcome in outcomes if isinstance(outcome, AddedHold)]


def rows_visited(plan: Mapping[str, Any]) -> float:
    """Return how many rows a plan's nodes have read or thrown away."""
    once: float = sum(
        plan.get(name, 0) for name in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Join Filter")
    )
    loops: float = plan["Actual Loops"]
    return once * loops + sum(rows_visited(child) for child in plan.get("Plans", ()))


def visited(watched: tuple[Connection, list[Any]], run: Callable[[Connection], object]) -> float:
    """Return how many rows the statements of `run` visit."""
    connection, found = watched
    # A statement ends when the next one begins, and has its plan told then.
    connection.execute(text("SELECT"))
    found.clear()
    run(connection)
    connection.execute(text("SELECT"))
    assert found
    return sum(rows_visited(plan["Plan"]) for plan in found)


@pytest.mark.parametrize("name", VERBS)
def test_a_backjob_costs_as_much_a_hold_for_many_as_for_few(
    watched: tuple[Connection, list[Any]], name: str
) -> None:
    """Eight times the holds are eight times the rows: a request and each way to decide it."""
    verb = VERBS[name]
    requests, decisions = {}, {}

    for holds in (FEW, MANY):
        job = f"job-of-{holds}"
        # A risk freeze in between, where it does not keep the decision back.
        hold_ids = add_holds(watched[0], job, holds)
        if name in {"reject", "withdraw"}:
            freeze_hold(watched[0], hold_id=hold_ids[holds // 2], kind=FreezeKind.RISK, **DECISION)
        asked: list[int] = []

        def ask(connection: Connection, job: str = job, asked: list[int] = asked) -> None:
            backjob = request_backjob(connection, job=job, by=PAYER, reason="it leaks", now=SOON)
            asked.append(backjob.backjob_id)

        requests[holds] = visited(watched, ask)
        decisions[holds] = visited(watched, partial(verb, backjob_id=asked[0], holds=holds))

    assert requests[MANY] < 9 * requests[FEW]
    assert decisions[MANY] < 9 * decisions[FEW]


def test_an_early_release_costs_as_much_a_hold_for_many_as_for_few(
    watched: tuple[Connection, list[Any]],
) -> None:
    """Eight times the holds of a job are eight times the rows."""
    releases = {}

    for holds in (FEW, MANY):
        job = f"job-of-{holds}"
        add_holds(watched[0], job, holds)
        releases[holds] = visited(watched, partial(release_early, job=job, as_admin=True, **DECISION))

    assert releases[MANY] < 9 * releases[FEW]
