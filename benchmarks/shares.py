"""What shares and hold rules cost: adding an earning that is divided, and releasing many of them.

Adding: `add_pending_earnings` and a commit over one plain psycopg connection, for wallets that exist. An
earning with three shares (the payee, a fee, a tax) takes turns with one without; so does one that a named
rule divides in the same way, and one whose payee has this rule.

Release: 500,000 earnings with a fee, all of whose fees go to one wallet, and 1,000,000 earnings without. Both
are a million holds, added by `add_many_pending_earnings`. One worker releases a copy of each in turns.
"""

import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import psycopg

from benchmarks.drain import TURNS, rate_of, release
from benchmarks.figure import Figure
from benchmarks.intake import ROUNDS, dsn
from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import database_clock
from buffer_pipeline.errors import Refused
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.rules import add_rule, assign_rule
from buffer_pipeline.shares import Share, ShareKind

WALLETS: Final = 1_000
PAYEES: Final = 100_000
A_STATEMENT: Final = 5_000

_OWN: Final = Share(kind=ShareKind.PAYEE)
_FEE: Final = Share(kind=ShareKind.FEE, owner="platform", percent=12)
_TAX: Final = Share(kind=ShareKind.TAX, owner="tax-office", percent=2)
_RULE: Final = "marketplace"


def measure(server: BenchmarkServer, *, singles: int = 2_000, holds: int = 1_000_000) -> list[Figure]:
    """Measure adding `singles` earnings on each side, and a release of `holds` holds."""
    return [*_singles(server, singles=singles), _release(server, holds=holds)]


def _singles(server: BenchmarkServer, *, singles: int) -> list[Figure]:
    now = datetime.now(UTC)
    sides: dict[str, dict[str, Any]] = {
        "plain": {},
        "with three shares": {"shares": (_OWN, _FEE, _TAX)},
        "by a named rule with a fee and a tax": {"rule": _RULE},
        "by the payee's rule with a fee and a tax": {"ruled": True},
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with server.books() as database:
        with psycopg.connect(dsn(server, database)) as connection:
            _prepare(connection, now=now)
        server.admin("VACUUM (ANALYZE)", database=database)
        with psycopg.connect(dsn(server, database)) as connection:
            size = singles // ROUNDS
            for turn in range(-1, ROUNDS):  # The first warms them up.
                order = list(sides.items())
                for side, changes in order if turn % 2 else order[::-1]:
                    began = time.perf_counter()
                    for number in range((turn + 1) * size, (turn + 2) * size):
                        add_pending_earnings(
                            connection, **vars(_earning(f"{side}-{number}", number, **changes)), now=now
                        )
                        connection.commit()
                    if turn >= 0:
                        seconds[side].append((time.perf_counter() - began) / size)
    plain = seconds.pop("plain")
    return [
        _figure(
            f"single add_pending_earnings {side}, median",
            statistics.median(taken) * 1000,
            "ms",
            yardstick="without shares",
            yardstick_value=statistics.median(plain) * 1000,
            ratio=statistics.median(one / other for one, other in zip(taken, plain, strict=True)),
            at_most=1.6 if side == "with three shares" else None,
        )
        for side, taken in seconds.items()
    ]


def _prepare(connection: psycopg.Connection[Any], *, now: datetime) -> None:
    """Make the wallets that the earnings need, and a rule that half of the payees have."""
    first = [
        _earning(f"first-{number}-{ruled}", number, ruled=ruled, shares=(_OWN, _FEE, _TAX))
        for number in range(WALLETS)
        for ruled in (False, True)
    ]
    outcomes = add_many_pending_earnings(connection, first, now=now, notify=False)
    assert not any(isinstance(outcome, Refused) for outcome in outcomes)
    who: dict[str, Any] = {"by": "admin-1", "reason": "benchmark", "now": now}
    add_rule(
        connection,
        name=_RULE,
        fee_percent=12,
        fee_owner="platform",
        tax_percent=2,
        tax_of="gross",
        tax_owner="tax-office",
        **who,
    )
    for number in range(WALLETS):
        assign_rule(connection, owner=f"ruled-{number}", name=_RULE, **who)
    connection.commit()


def _earning(reference: str, number: int, *, ruled: bool = False, **changes: Any) -> Earning:
    return Earning(
        reference=reference,
        job=f"job-{reference}",
        payee=f"{'ruled' if ruled else 'worker'}-{number * 7919 % WALLETS}",
        payer=f"client-{number * 104729 % WALLETS}",
        amount="100.00",
        currency="PHP",
        **changes,
    )


def _release(server: BenchmarkServer, *, holds: int) -> Figure:
    rates: dict[str, list[float]] = {"divided": [], "plain": []}
    with server.books() as divided, server.books() as plain:
        _hold_due(server, divided, number=holds // 2, shares=(_OWN, _FEE))
        _hold_due(server, plain, number=holds, shares=())
        for _ in range(TURNS):
            for books, taken in ((divided, rates["divided"]), (plain, rates["plain"])):
                rate, _ = rate_of(server, books, release)
                taken.append(rate)
    return _figure(
        f"{holds // 2:,} earnings with a fee for one wallet released, one worker",
        statistics.median(rates["divided"]),
        "holds/s",
        yardstick=f"{holds:,} without shares",
        yardstick_value=statistics.median(rates["plain"]),
        ratio=statistics.median(rates["divided"]) / statistics.median(rates["plain"]),
        at_least=0.9,
    )


def _hold_due(server: BenchmarkServer, books: str, *, number: int, shares: tuple[Share, ...]) -> None:
    engine = server.engine(books)
    with engine.connect() as connection:
        now = database_clock(connection)
    earnings = _due_earnings(number, shares, now=now)
    while chunk := list(islice(earnings, A_STATEMENT)):
        with engine.begin() as connection:
            add_many_pending_earnings(connection, chunk, now=now)
    engine.dispose()
    server.admin("VACUUM (ANALYZE)", database=books)


def _due_earnings(number: int, shares: tuple[Share, ...], *, now: datetime) -> Iterator[Earning]:
    for place in range(number):
        yield Earning(
            reference=f"earning-{place}",
            job=f"job-{place}",
            payee=f"worker-{place * 7919 % PAYEES}",
            payer=f"client-{place % WALLETS}",
            amount="100.00",
            currency="PHP",
            held_at=now - timedelta(days=7, minutes=1),
            shares=shares,
        )


def _figure(
    name: str,
    value: float,
    unit: str,
    *,
    yardstick: str,
    yardstick_value: float,
    ratio: float,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    goal, met = "no goal", None
    if at_most is not None:
        goal, met = f"at most {at_most} times", ratio <= at_most
    if at_least is not None:
        goal, met = f"at least {at_least} times", ratio >= at_least
    return Figure(
        benchmark="shares",
        name=name,
        value=value,
        unit=unit,
        yardstick=yardstick,
        yardstick_value=yardstick_value,
        ratio=ratio,
        goal=goal,
        met=met,
    )
