"""Move the clock of a sandbox, and do what would have happened meanwhile, hour by hour."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from buffer_pipeline.database import fetch
from buffer_pipeline.errors import ClockRefused
from buffer_pipeline.hours import HOUR, clock_of_a_writer, hour_of
from buffer_pipeline.notifications.channels.channel import Endpoint
from buffer_pipeline.notifications.drain import drain
from buffer_pipeline.notifications.drain_context import Renderer
from buffer_pipeline.notifications.outbox import to_send
from buffer_pipeline.payouts import make_scheduled_batches
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline.reports.due import due_holds
from buffer_pipeline.sandbox.clock import Advanced, require_clock, target_of

SOURCE: Final = "test clock"
"""The source of the releases of an advance."""

PAYOUT_HOUR: Final = 6
"""When Dagster's schedule `daily_payouts` makes the batches of a day, in UTC."""

PAID_OUT_BY: Final = "schedule"


@dataclass(kw_only=True)
class Sandbox:
    """A sandbox and what an advance needs to do its work.

    `releaser` is an engine of a login that may release and send, `payouts` of one that may pay out. `stop`
    returns True to end before the next hour.
    """

    releaser: Engine
    payouts: Engine
    endpoints: Sequence[Endpoint]
    messages: Renderer
    payout_policy: PayoutPolicy
    stop: Callable[[], bool] = lambda: False
    after_hour: Callable[[], None] = lambda: None


@dataclass
class _Done:
    hours: int = 0
    holds_released: int = 0
    released_minor: Counter[str] = field(default_factory=Counter)
    payouts: int = 0
    payout_batches: int = 0
    sent: int = 0
    dead: int = 0


def advance(sandbox: Sandbox, *, duration: timedelta | None = None, to: datetime | None = None) -> Advanced:
    """Move the clock, and do in order what would have happened meanwhile.

    First the messages that wait are sent. Then, at each full hour: what is due is released, at six o'clock
    the payouts of the day are put into batches if the sandbox has `daily_payouts`, and the messages are sent.
    Between the hours the clock moves. If the advance is cut short, the next one goes on in the hour where it
    was; what is done twice then is what a repeated run does, which changes nothing.

    Raises:
        ClockRefused: the books are real, another advance is running, or the login may not pay out.
        InvalidInput: as `target_of`. Nothing is written.
    """
    with _alone(sandbox.releaser):
        with sandbox.releaser.begin() as connection:
            clock = require_clock(connection)
            target = target_of(clock, duration=duration, to=to)
            if clock.daily_payouts:
                _require_payouts(sandbox.payouts)
            began = clock.advance_from or clock.now
            fetch(connection, "sandbox/begin_advance", advance_from=began, advance_to=target)
        done = _Done()
        _send(sandbox, done)
        now, worked_until = clock.now, clock.worked_until
        while worked_until + HOUR <= target and not sandbox.stop():
            hour = worked_until + HOUR
            now = max(now, hour)
            # The hour before it is done, and this one has begun.
            _set_clock(sandbox.releaser, now=now, worked_until=worked_until)
            if not _work(sandbox, hour, done, daily_payouts=clock.daily_payouts):
                break
            worked_until = hour
            done.hours += 1
            sandbox.after_hour()
        ended = not sandbox.stop() and worked_until == hour_of(target)
        now = target if ended else now
        _set_clock(sandbox.releaser, now=now, worked_until=worked_until)
        if ended:
            _send(sandbox, done)
            ended = not sandbox.stop()
        if ended:
            with sandbox.releaser.begin() as connection:
                fetch(connection, "sandbox/end_advance")
    return Advanced(
        advanced_from=began,
        advance_to=target,
        now=now,
        hours=done.hours,
        holds_released=done.holds_released,
        released_minor=dict(done.released_minor),
        payouts=done.payouts,
        payout_batches=done.payout_batches,
        sent=done.sent,
        dead=done.dead,
        interrupted=not ended,
    )


def _work(sandbox: Sandbox, hour: datetime, done: _Done, *, daily_payouts: bool) -> bool:
    """Do the work of a full hour; return False if it was stopped before its end."""
    with sandbox.releaser.begin() as connection:
        due = due_holds(connection, due_by=hour).holds
    if due:
        run = release_all_due(sandbox.releaser, due_by=hour, source=SOURCE, stop=sandbox.stop)
        done.holds_released += run.holds_released
        done.released_minor.update(run.amounts_minor)
    if daily_payouts and hour.hour == PAYOUT_HOUR and not sandbox.stop():
        with sandbox.payouts.begin() as connection:
            made = make_scheduled_batches(
                connection,
                by=PAID_OUT_BY,
                now=clock_of_a_writer(connection),
                policy=sandbox.payout_policy,
            )
        done.payouts += made.requested.payouts
        done.payout_batches += len(made.batches)
    _send(sandbox, done)
    return not sandbox.stop()


def _send(sandbox: Sandbox, done: _Done) -> None:
    """Send the messages that wait, unless there are none: a drain starts threads."""
    names = [endpoint.name for endpoint in sandbox.endpoints]
    with sandbox.releaser.begin() as connection:
        clock = require_clock(connection)
        found = to_send(connection, endpoints=names, now=clock.now)
    if not (found.new or found.due):
        return
    drained = drain(sandbox.releaser, sandbox.endpoints, sandbox.messages, stop=sandbox.stop)
    done.sent += drained.sent
    done.dead += drained.dead


def _set_clock(engine: Engine, *, now: datetime, worked_until: datetime) -> None:
    with engine.begin() as connection:
        fetch(connection, "sandbox/set_clock", now=now, worked_until=worked_until)


def _require_payouts(engine: Engine) -> None:
    with engine.begin() as connection:
        login = fetch(connection, "payouts/may_pay_out")[0]
    if not login["may"]:
        raise ClockRefused(
            f"clock: the sandbox makes payouts, and login {login['login']!r} may not pay out;"
            f" run `GRANT buffer_payouts TO {login['login']};`"
        )


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Refuse a second advance until the end of the block, on a connection that does nothing else."""
    with engine.begin() as connection:
        if not fetch(connection, "sandbox/try_lock")[0]["is_mine"]:
            raise ClockRefused("clock: another advance is running; tell this one when that has ended")
        yield connection
