"""Caller clocks that differ from the database's, or slightly from each other."""

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import ProgrammingError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.backjob import reject_backjob, request_backjob
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.inputs import CLOCK_SKEW_MAX
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import (
    ReleasePosition,
    ReleaseRange,
    Shard,
    release_early,
    release_matured,
    release_range,
)
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.tables import backjob, hold_freeze
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYEE, PAYER, books, place_hold, state_of
from buffer_pipeline_tests.support.databases import Books

SAID: Final[dict[str, Any]] = {"by": ADMIN, "reason": "a look"}
LATER: Final = Earning(
    reference="earning-later", job=JOB, payee="worker-18", payer=PAYER, amount="1.00", currency="PHP"
)

AHEAD: Final[dict[str, Callable[[Connection, datetime], object]]] = {
    "add one": lambda connection, now: add_pending_earnings(
        connection, **asdict(replace(LATER, payee=PAYEE)), now=now
    ),
    "add": lambda connection, now: add_many_pending_earnings(connection, [LATER], now=now),
    "freeze": lambda connection, now: freeze_hold(
        connection, hold_id=1, kind=FreezeKind.RISK, **SAID, now=now
    ),
    "unfreeze": lambda connection, now: unfreeze_hold(connection, freeze_id=1, **SAID, now=now),
    "request": lambda connection, now: request_backjob(connection, job="job-9", **SAID, now=now),
    "reject": lambda connection, now: reject_backjob(connection, backjob_id=1, **SAID, now=now),
    "refund": lambda connection, now: refund_hold(connection, hold_id=1, reference="r", **SAID, now=now),
    "reschedule": lambda connection, now: reschedule_hold(
        connection, hold_id=1, to=now + timedelta(days=1), as_admin=True, **SAID, now=now
    ),
    "deposit by somebody": lambda connection, now: deposit(
        connection, owner="worker-new", amount="1.00", currency="USD", reference="in-1", **SAID, now=now
    ),
    "release early": lambda connection, now: release_early(
        connection, hold_id=1, as_admin=True, **SAID, now=now
    ),
}


@pytest.mark.parametrize("verb", AHEAD)
def test_clock_days_ahead_is_refused(roles: Books, verb: str) -> None:
    """A release date counts from a rejection, and a freeze opened in 2062 could be closed only after that."""
    with roles.owner.begin() as connection:
        place_hold(connection)
        place_hold(connection, job="job-9", release_date=datetime(2999, 1, 1, tzinfo=UTC))
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
        before = books(connection)

    with (
        roles.platform.begin() as connection,
        pytest.raises(InvalidInput, match=r"^now 2062-.*: more than a day after the database's clock$"),
    ):
        AHEAD[verb](connection, datetime(2062, 1, 1, tzinfo=UTC))

    with roles.owner.begin() as connection:
        assert books(connection) == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO buffer.backjob (job, requested_by, reason, requested_at)"
        " VALUES ('job-9', 'x', 'x', :now)",
        "UPDATE buffer.backjob SET state = 'REJECTED', decided_by = 'x', decision_reason = 'x',"
        " decided_at = :now",
        "INSERT INTO buffer.hold_freeze (hold_id, kind, opened_by, reason, opened_at)"
        " VALUES (1, 'RISK', 'x', 'x', :now)",
        "UPDATE buffer.hold_freeze SET closed_by = 'x', closing_reason = 'x', closed_at = :now",
        "INSERT INTO buffer.batch (kind, source, reason, recorded_at) VALUES ('EARLY', 'x', 'x', :now)",
        "INSERT INTO buffer.audit_line (at, by, verb, owner, transaction_id)"
        " VALUES (:now, 'x', 'DEPOSIT', 'x', 1)",
    ],
)
def test_raw_sql_with_a_future_decision_time_is_refused(roles: Books, statement: str) -> None:
    """PostgreSQL refuses the row."""
    with roles.owner.begin() as connection:
        place_hold(connection)
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)

    with (
        pytest.raises(ProgrammingError, match="new row violates row-level security policy"),
        roles.platform.begin() as connection,
    ):
        connection.execute(text(statement), {"now": datetime.now(UTC) + timedelta(days=2)})


RELEASES: Final[list[Callable[[Connection, datetime], object]]] = [
    lambda connection, now: release_matured(connection, now=now, batch_limit=10),
    lambda connection, now: release_range(
        connection,
        now=now,
        due_by=now,
        source="test",
        hold_range=ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(now), shard=Shard()),
    ),
]


@pytest.mark.parametrize("release", RELEASES)
def test_nothing_is_released_before_its_date_by_a_callers_clock(
    roles: Books, release: Callable[[Connection, datetime], object]
) -> None:
    """A hold is due by the database's clock, even if the caller's clock is slightly ahead."""
    now = datetime.now(UTC)
    with roles.owner.begin() as connection:
        hold_id = place_hold(connection, held_at=now, release_date=now + timedelta(hours=2))

    with (
        pytest.raises(InvalidInput, match=r"^now .*: after the database's clock$"),
        roles.platform.begin() as connection,
    ):
        release(connection, now + timedelta(hours=3))

    with roles.owner.begin() as connection:
        assert state_of(connection, hold_id) is HoldState.BUFFERED


def close_freeze(connection: Connection, now: datetime) -> datetime | None:
    """Close the only freeze and return the time of closing."""
    freeze_id = connection.execute(select(hold_freeze.c.freeze_id)).scalar_one()
    unfreeze_hold(connection, freeze_id=freeze_id, **SAID, now=now)
    return connection.scalar(select(hold_freeze.c.closed_at))


def refund(connection: Connection, now: datetime) -> datetime | None:
    """Refund the frozen hold and return the closing time of its freeze."""
    hold_id = connection.execute(select(hold_freeze.c.hold_id)).scalar_one()
    refund_hold(connection, hold_id=hold_id, reference="refund-1", **SAID, now=now)
    return connection.scalar(select(hold_freeze.c.closed_at))


def reject(connection: Connection, now: datetime) -> datetime | None:
    """Reject the only backjob and return the time of the decision."""
    backjob_id = connection.execute(select(backjob.c.backjob_id)).scalar_one()
    reject_backjob(connection, backjob_id=backjob_id, **SAID, now=now)
    return connection.scalar(select(backjob.c.decided_at))


@pytest.mark.parametrize("end", [close_freeze, refund, reject])
def test_clock_slightly_behind_is_accepted(
    connection: Connection, end: Callable[[Connection, datetime], datetime | None]
) -> None:
    """An end slightly before its beginning is stored as the time of the beginning. A larger difference is
    refused.
    """
    place_hold(connection, state=HoldState.BUFFERED if end is reject else HoldState.FROZEN)
    if end is reject:
        request_backjob(connection, job=JOB, by=PAYER, reason="it leaks", now=NOON)
    before = books(connection)

    with pytest.raises(InvalidInput, match=r"^now 2026-03-02T11:58:59.*: lies before "):
        end(connection, NOON - CLOCK_SKEW_MAX - timedelta(microseconds=1))
    untouched = books(connection)
    ended_at = end(connection, NOON - CLOCK_SKEW_MAX)

    assert untouched == before
    assert ended_at == NOON
    assert reconcile(connection) == []
