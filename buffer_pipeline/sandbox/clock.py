"""The mark of a sandbox, which is its clock. Real books have none and cannot get one."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.database import fetch, first_line
from buffer_pipeline.errors import ClockRefused, InvalidInput
from buffer_pipeline.inputs import require_time

ADVANCE_MAX: Final = timedelta(days=366)

_REFUSED_BY_THE_TRIGGER: Final = "55000"
_LOCKED: Final = "55P03"
_EXISTS: Final = "23505"

_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_DURATION: Final = re.compile(r"([0-9]{1,6})([dhm])")


@dataclass(frozen=True, kw_only=True)
class SandboxClock:
    """The clock of a sandbox.

    The work of every full hour until `worked_until` is done. An advance that has not ended, or was cut short,
    goes from `advance_from` to `advance_to`. With `daily_payouts`, an advance makes the batches of payouts
    that Dagster's schedule `daily_payouts` would make.
    """

    now: datetime
    worked_until: datetime
    advance_from: datetime | None
    advance_to: datetime | None
    daily_payouts: bool


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """What an advance did.

    It began at `advanced_from`, and the clock is at `now`, which is before `advance_to` if it was
    `interrupted`. `hours` are the full hours that it worked through. `released_minor` has the released
    amounts by currency, and `payouts` and `payout_batches` what was requested by schedule and put into
    batches. `sent` messages were sent, and `dead` are those that were given up.
    """

    advanced_from: datetime
    advance_to: datetime
    now: datetime
    hours: int
    holds_released: int
    released_minor: dict[str, int]
    payouts: int
    payout_batches: int
    sent: int
    dead: int
    interrupted: bool


def start_clock(connection: Connection, *, now: datetime, daily_payouts: bool = False) -> SandboxClock:
    """Mark the books as a sandbox for good, and set its clock. Only for the login of the books' owner.

    Raises:
        InvalidInput: a time without a zone, or outside the years that times may have.
        ClockRefused: the books are a sandbox already, hold anything, or somebody writes into them.
    """
    now = require_time("clock", now)
    if (found := find_clock(connection)) is not None:
        raise ClockRefused(f"books: a sandbox already, whose clock is at {found.now.isoformat()}")
    try:
        rows = fetch(connection, "sandbox/start", now=now, daily_payouts=daily_payouts)
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == _REFUSED_BY_THE_TRIGGER:
            raise ClockRefused(first_line(error)) from None
        if state == _LOCKED:
            raise ClockRefused(
                "books: somebody is writing into them; a sandbox is made of books that nobody uses"
            ) from None
        if state == _EXISTS:
            raise ClockRefused("books: another process has just made them a sandbox") from None
        raise
    return SandboxClock(**rows[0])


def find_clock(connection: Connection) -> SandboxClock | None:
    """Return the clock of a sandbox; None in real books."""
    rows = fetch(connection, "sandbox/find")
    return SandboxClock(**rows[0]) if rows else None


def require_clock(connection: Connection) -> SandboxClock:
    """Return the clock of a sandbox.

    Raises:
        ClockRefused: the books are real.
    """
    found = find_clock(connection)
    if found is None:
        raise ClockRefused("books: no sandbox; their clock is the database's, and nothing can set it")
    return found


def parse_duration(text: str) -> timedelta:
    """Return a duration such as 7d, 12h or 90m.

    Raises:
        InvalidInput: anything else, or nothing at all.
    """
    match = _DURATION.fullmatch(text.strip())
    duration = int(match[1]) * _UNITS[match[2]] if match else timedelta()
    if not duration:
        raise InvalidInput(
            f"duration {text!r}: needs a number of days, hours or minutes, such as 7d, 12h, 90m"
        )
    return duration


def target_of(clock: SandboxClock, *, duration: timedelta | None, to: datetime | None) -> datetime:
    """Return where an advance goes.

    A duration counts from where an unfinished advance began, so the same request once more ends at the same
    time. Without a duration and a time, the unfinished advance goes on.

    Raises:
        InvalidInput: both, or neither while nothing is unfinished; a time before the clock, or more than a
            year from where the advance began.
    """
    if duration is not None and to is not None:
        raise InvalidInput("clock: needs a duration or a time, not both")
    began = clock.advance_from or clock.now
    if to is not None:
        target = require_time("to", to)
    elif duration is not None:
        try:
            target = require_time("to", began + duration)
        except OverflowError:
            raise InvalidInput(f"duration {duration}: too long") from None
    elif clock.advance_to is not None:
        target = clock.advance_to
    else:
        raise InvalidInput("clock: needs a duration such as 7d, or a time; no advance is unfinished")
    if target < clock.now:
        raise InvalidInput(
            f"to {target.isoformat()}: lies before the clock, {clock.now.isoformat()}, which never goes back"
        )
    if target - began > ADVANCE_MAX:
        raise InvalidInput(
            f"to {target.isoformat()}: more than a year after {began.isoformat()}; advance in steps"
        )
    return target
