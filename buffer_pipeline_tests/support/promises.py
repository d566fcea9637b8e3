"""What an explanation promises, compared with what the verbs and the release run really do."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, text

from buffer_pipeline.backjob import reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.errors import BackjobRefused, DateRefused, WindowClosed
from buffer_pipeline.explain import Actor, Explanation, ReasonCode, Way, WayVerb, explain_hold
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.owner_freeze import unfreeze_owner
from buffer_pipeline.policy import Policy
from buffer_pipeline.reads import Hold
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline_tests.support.builders import ADMIN, hold_row, state_of

LONG: Final = timedelta(days=400)
SECOND: Final = timedelta(seconds=1)


def moment(at: datetime) -> str:
    """Return a time as the tests read it."""
    return f"{at:%Y-%m-%d %H:%M}"


def kept(connection: Connection, hold_id: int, *, now: datetime, policy: Policy | None = None) -> Explanation:
    """Return the explanation, after each of its promises was kept in a savepoint that is rolled back."""
    found = explain_hold(connection, hold_id=hold_id, now=now, policy=policy)
    with_nothing_done(connection, found)
    _require_window(connection, found, policy=policy)
    for reason in found.reasons:
        for way in reason.ways:
            _require_kept(connection, found, way, policy=policy)
    return found


def with_nothing_done(connection: Connection, found: Explanation) -> None:
    """Let the release run come as the explanation says, if nobody does anything."""
    if found.hold.state in (HoldState.BUFFERED, HoldState.FROZEN):
        _require_released_at(connection, found.hold.hold_id, found.released_at, now=found.at)


def _require_window(connection: Connection, found: Explanation, *, policy: Policy | None) -> None:
    """A backjob that is requested until the end of the window freezes the hold, and no later one does."""
    for reason in found.reasons:
        if reason.code is not ReasonCode.IN_WINDOW:
            assert reason.backjob_until is None
            continue
        assert reason.until is not None
        until = reason.backjob_until
        if until is None:
            for moment in (found.at, reason.until - SECOND):
                assert not _can_be_requested(connection, found.hold, now=max(moment, found.at), policy=policy)
            continue
        for moment in (found.at, until - SECOND):
            assert _can_be_requested(connection, found.hold, now=max(moment, found.at), policy=policy)
        assert not _can_be_requested(connection, found.hold, now=until, policy=policy)


def _can_be_requested(connection: Connection, hold: Hold, *, now: datetime, policy: Policy | None) -> bool:
    """Return whether a backjob that is requested at `now` freezes the hold. Leaves nothing behind."""
    savepoint = connection.begin_nested()
    try:
        done = request_backjob(
            connection, job=hold.job, by=hold.payer, reason="drips", now=now, policy=policy
        )
    except (BackjobRefused, WindowClosed):
        return False
    finally:
        savepoint.rollback()
    return hold.hold_id in done.hold_ids


def _require_kept(connection: Connection, found: Explanation, way: Way, *, policy: Policy | None) -> None:
    hold, moment = found.hold, way.possible_from or found.at
    if way.possible_from is not None:
        _require_refused_before(connection, found, way, policy=policy)
    savepoint = connection.begin_nested()
    _DONE_BY[way.verb](connection, hold, way, moment, policy)
    if way.at_once:
        assert way.released_at == moment, way
        assert state_of(connection, hold.hold_id) is HoldState.RELEASED, way
        assert hold_row(connection, hold.hold_id)["settled_at"] == moment, way
    else:
        assert (way.released_at is None) == bool(way.still_kept_by), way
        _require_released_at(connection, hold.hold_id, way.released_at, now=moment)
        left = explain_hold(connection, hold_id=hold.hold_id, now=moment, policy=policy)
        assert left.released_at == way.released_at, way
        codes = [reason.code for reason in left.reasons]
        assert set(way.still_kept_by) <= set(codes), way
    savepoint.rollback()


def _require_released_at(
    connection: Connection, hold_id: int, expected: datetime | None, *, now: datetime
) -> None:
    """The run of that hour releases the hold, and no run before it does."""
    savepoint = connection.begin_nested()
    if expected is None:
        release_matured(connection, now=now + LONG, batch_limit=1_000)
        assert state_of(connection, hold_id) is HoldState.FROZEN
    else:
        assert expected.replace(minute=0, second=0, microsecond=0) == expected
        if expected - HOUR >= now:
            release_matured(connection, now=expected - HOUR, batch_limit=1_000)
        assert state_of(connection, hold_id) is HoldState.BUFFERED
        release_matured(connection, now=expected, batch_limit=1_000)
        assert state_of(connection, hold_id) is HoldState.RELEASED
    savepoint.rollback()


def _require_refused_before(
    connection: Connection, found: Explanation, way: Way, *, policy: Policy | None
) -> None:
    assert way.possible_from is not None
    savepoint = connection.begin_nested()
    with pytest.raises(DateRefused):
        _DONE_BY[way.verb](connection, found.hold, way, way.possible_from - timedelta(seconds=1), policy)
    savepoint.rollback()


def _early(connection: Connection, hold: Hold, way: Way, now: datetime, policy: Policy | None) -> None:
    by_payer = way.who is Actor.PAYER
    release_early(
        connection,
        hold_id=way.target_id,
        by=hold.payer if by_payer else ADMIN,
        reason="agreed",
        as_admin=not by_payer,
        now=now,
        policy=policy,
    )


def _run(connection: Connection, _hold: Hold, _way: Way, now: datetime, _policy: Policy | None) -> None:
    release_matured(connection, now=now, batch_limit=1_000)


def _reject(connection: Connection, _hold: Hold, way: Way, now: datetime, policy: Policy | None) -> None:
    reject_backjob(connection, backjob_id=way.target_id, by=ADMIN, reason="done well", now=now, policy=policy)


def _withdraw(connection: Connection, hold: Hold, way: Way, now: datetime, _policy: Policy | None) -> None:
    withdraw_backjob(connection, backjob_id=way.target_id, by=hold.payer, reason="settled", now=now)


def _unfreeze(connection: Connection, _hold: Hold, way: Way, now: datetime, _policy: Policy | None) -> None:
    unfreeze_hold(connection, freeze_id=way.target_id, by=ADMIN, reason="cleared", now=now)


def _unfreeze_owner(
    connection: Connection, hold: Hold, way: Way, now: datetime, _policy: Policy | None
) -> None:
    named = connection.scalar(
        text("SELECT owner FROM buffer.owner_freeze WHERE owner_freeze_id = :id"), {"id": way.target_id}
    )
    assert named == hold.payee
    unfreeze_owner(connection, owner=hold.payee, by=ADMIN, reason="cleared", now=now)


_DONE_BY: Final[dict[WayVerb, Callable[[Connection, Hold, Way, datetime, Any], None]]] = {
    WayVerb.RELEASE_EARLY: _early,
    WayVerb.RELEASE_MATURED: _run,
    WayVerb.REJECT_BACKJOB: _reject,
    WayVerb.WITHDRAW_BACKJOB: _withdraw,
    WayVerb.UNFREEZE_HOLD: _unfreeze,
    WayVerb.UNFREEZE_OWNER: _unfreeze_owner,
}
