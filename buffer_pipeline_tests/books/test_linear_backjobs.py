"""What a verb on many holds costs grows as their number does, whatever the planner believes of them.

Counted are the rows that the server's plans visit, which a busy machine does not change.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import make_engine
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.release import release_early
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.shares import Share
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYER, WITH_A_FEE
from buffer_pipeline_tests.support.rules import add

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


@pytest.fixture(params=["never analyzed", "analyzed after a drain"])
def watched(
    engine: Engine, superuser_url: str, request: pytest.FixtureRequest
) -> Iterator[tuple[Connection, list[Any]]]:
    """A connection to books whose statistics mislead, and the plans of all that ran on it."""
    if request.param == "analyzed after a drain":
        with engine.begin() as connection:
            add_holds(connection, "job-before", 3_000)
        release_all_due(engine, due_by=NOON + timedelta(days=8), source="test")
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


def add_holds(
    connection: Connection,
    job: str,
    holds: int,
    *,
    payee: str | None = None,
    shares: Sequence[Share] = (),
    rule: str | None = None,
) -> list[int]:
    """Hold an earning of 10.00 for each of as many workers, or for the payee; return the holds' ids."""
    outcomes = add_many_pending_earnings(
        connection,
        [
            Earning(
                reference=f"{job}-{number}",
                job=job,
                payee=payee or f"worker-{number}",
                payer=PAYER,
                amount="10.00",
                currency="PHP",
                shares=shares,
                rule=rule,
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
    # A statement ends when the next one begins, and has its plan logged then.
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
        # The cooldown of each hold is that of its rule.
        add(watched[0], job, cooldown_hours=1)
        hold_ids = add_holds(watched[0], job, holds, rule=job)
        # A risk freeze in between, where it does not keep the decision back.
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


def test_an_earning_with_shares_costs_as_much_for_many_as_for_few(
    watched: tuple[Connection, list[Any]],
) -> None:
    """Eight times the earnings are eight times the rows, and so is a backjob on all of their shares."""
    intakes, requests, refunds = {}, {}, {}

    for holds in (FEW, MANY):
        job = f"job-of-{holds}"
        backjobs: list[int] = []

        def ask(connection: Connection, job: str = job, asked: list[int] = backjobs) -> None:
            backjob = request_backjob(connection, job=job, by=PAYER, reason="it leaks", now=SOON)
            asked.append(backjob.backjob_id)

        intakes[holds] = visited(watched, partial(add_holds, job=job, holds=holds, shares=WITH_A_FEE))
        requests[holds] = visited(watched, ask)
        refunds[holds] = visited(watched, partial(_approve_a_part, backjob_id=backjobs[0], holds=holds))

    assert intakes[MANY] < 9 * intakes[FEW]
    assert requests[MANY] < 9 * requests[FEW]
    # Many freezes are read by bitmap scans, which count each row twice.
    assert refunds[MANY] < 10 * refunds[FEW]


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


def test_an_owners_freeze_costs_as_much_a_hold_for_many_as_for_few(
    watched: tuple[Connection, list[Any]],
) -> None:
    """Eight times the holds of an owner are eight times the rows: a freeze, earnings after it, and its end.

    The holds of others are not read, however many wait.
    """
    freezes, intakes, ends = {}, {}, {}
    others = 8 * MANY
    add_holds(watched[0], "job-of-others", others, payee="another-owner")

    def visited_inside(run: Callable[[Connection], object]) -> float:
        # Also by the statements of the function that finds the owner's holds.
        watched[0].execute(text("SET auto_explain.log_nested_statements = on"))
        rows = visited(watched, run)
        watched[0].execute(text("SET auto_explain.log_nested_statements = off"))
        return rows

    for holds in (FEW, MANY):
        owner = f"owner-of-{holds}"
        hold_ids = add_holds(watched[0], f"job-of-{holds}", holds, payee=owner)
        freeze_hold(watched[0], hold_id=hold_ids[holds // 2], kind=FreezeKind.RISK, **DECISION)
        freezes[holds] = visited_inside(partial(freeze_owner, owner=owner, kind=FreezeKind.ADMIN, **DECISION))
        intakes[holds] = visited(
            watched, partial(add_holds, job=f"late-of-{holds}", holds=holds, payee=owner)
        )
        ends[holds] = visited_inside(partial(unfreeze_owner, owner=owner, **DECISION))

    assert freezes[MANY] < 9 * freezes[FEW]
    assert freezes[FEW] < others
    assert intakes[MANY] < 9 * intakes[FEW]
    # More than 9: for many holds the planner takes bitmap scans, which count each row twice.
    assert ends[MANY] < 12 * ends[FEW]
    assert ends[FEW] < 2 * others
