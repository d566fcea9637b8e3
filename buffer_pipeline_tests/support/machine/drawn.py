"""The values that each step draws: owners, jobs, amounts, times, and choices among existing things."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from buffer_pipeline.rules import STANDARD
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.model.amounts import PLACES

TICK: Final = timedelta(microseconds=1)
HOUR: Final = timedelta(hours=1)
UNKNOWN_IDS: Final = (0, 999_999, 2**70)

ZERO: Final = 0
TOO_MANY_PLACES: Final = -1

# Few jobs, so that each has holds of several payees. A payee of one job may be the payer of another.
JOBS: Final = st.sampled_from(["job-1", "job-1", "job-1", "job-2", "job-2", "job-3"])
PAYEES: Final = st.sampled_from(["worker-1", "worker-1", "worker-2", "worker-3", "client-2"])
THE_JOBS: Final = "the job's"
PAYERS: Final = st.sampled_from([THE_JOBS] * 24 + ["client-1"] * 4 + ["client-2"] * 3 + ["worker-1"])
OWNERS: Final = st.sampled_from(["worker-1", "worker-2", "client-1", "client-2", "stranger-1"])
CURRENCIES: Final = st.sampled_from(["PHP"] * 12 + ["JPY"] * 2 + ["KWD"] * 2)
# Few and small amounts, so that shares have remainders and some remainders are equal.
AMOUNTS: Final = st.sampled_from([*[1, 2, 3, 10, 10, 10, 333, 99_999] * 4, ZERO, TOO_MANY_PLACES])
HELD_AGO: Final = st.sampled_from(
    [None] * 10 + [3 * HOUR, timedelta(days=6), timedelta(days=7), timedelta(days=8), timedelta(0)]
)
LASTS: Final = st.sampled_from(
    [None] * 12 + [timedelta(0), timedelta(minutes=50), HOUR, 30 * HOUR, timedelta(days=3), -TICK]
)
_OWN: Final = Share(kind=ShareKind.PAYEE)
_FEE: Final = Share(kind=ShareKind.FEE, owner="platform-1", percent="12.5")
DIVIDED: Final[dict[str, tuple[Share, ...]]] = {
    "not": (),
    "a fee": (_OWN, _FEE),
    "a reserve": (_OWN, Share(kind=ShareKind.RESERVE, percent=25, days=8)),
    "all kinds": (
        _FEE,
        Share(kind=ShareKind.TAX, owner="tax-1", percent=2, days=0),
        Share(kind=ShareKind.RESERVE, percent=10, days=14),
        _OWN,
    ),
    "the payee's first": (
        Share(kind=ShareKind.PAYEE, percent="33.3333", days=1),
        Share(kind=ShareKind.RESERVE, percent="33.3333"),
        Share(kind=ShareKind.FEE, owner="platform-1"),
    ),
    "a team": (_OWN, Share(kind=ShareKind.PAYEE, owner="worker-2", percent=50, days=9), _FEE),
    "a fee for a payee": (_OWN, Share(kind=ShareKind.FEE, owner="worker-1", percent=20)),
    "by amounts": (_OWN, Share(kind=ShareKind.TAX, owner="tax-1", amount=1)),
    "one share": (Share(kind=ShareKind.PAYEE, percent=100, days=2),),
    "no share for the payee": (_OWN, Share(kind=ShareKind.FEE, owner="platform-1", percent=100)),
    "too much": (
        Share(kind=ShareKind.PAYEE, percent=60),
        Share(kind=ShareKind.FEE, owner="platform-1", percent=60),
    ),
    "nobody's fee": (_OWN, Share(kind=ShareKind.FEE, percent=5)),
}
"""How an earning is divided."""
SHARES: Final = st.sampled_from(["not"] * 12 + ["a fee", "a reserve", "all kinds", "a team"] * 2 + [*DIVIDED])
RULES: Final[dict[str, Mapping[str, Any]]] = {
    "marketplace": {"fee_percent": "12.5", "fee_owner": "platform-1", "fee_on_refund": "keep"},
    "trusted": {"days": 5, "min_days": 4, "cooldown_hours": 1, "max_backjobs": 1},
    "all kinds": {
        "currency": "PHP",
        "days": 9,
        "fee_percent": "10",
        "fee_fixed": "0.02",
        "fee_owner": "platform-1",
        "tax_percent": "2",
        "tax_of": "net",
        "tax_owner": "client-2",
        "reserve_percent": "33.3333",
        "reserve_days": 14,
    },
    "the payer's": {"fee_percent": "1", "fee_owner": "client-1"},
    "a third of it": {"days": 1, "recovery_percent": "33"},
    "none of it": {"days": 1, "recovery_percent": "0"},
    "retired": {"days": 2},
    STANDARD: {"days": 6, "tax_percent": "1", "tax_of": "gross", "tax_owner": "tax-1"},
}
"""The terms of each rule by its name."""
BY_RULE: Final = st.sampled_from(
    [
        *[None] * 8,
        *["trusted"] * 4,
        *["marketplace"] * 2,
        *["all kinds"] * 3,
        "the payer's",
        "retired",
        STANDARD,
        "rule-9",
    ]
)
EARNINGS: Final = st.tuples(JOBS, PAYEES, PAYERS, CURRENCIES, AMOUNTS, HELD_AGO, LASTS, SHARES, BY_RULE)
AGO: Final = st.sampled_from([timedelta(0)] * 4 + [TICK, timedelta(minutes=30), timedelta(days=1)])
CHANGES: Final = (
    "nothing",
    "dates omitted",
    "dates given",
    "amount",
    "currency",
    "payee",
    "payer",
    "job",
    "title",
    "held at",
    "release date",
    "shares",
    "shares omitted",
    "rule",
    "rule omitted",
)
DECIDED: Final = st.sampled_from([*["open"] * 8, "any", "unknown"])
PARTS: Final = (
    *["whole"] * 6,
    *["one unit"] * 2,
    *["a third", "half", "all but one", "all"],
    *["above"] * 2,
    *["places", "zero"],
)
NAMED: Final = st.sampled_from([*["all"] * 5, "one", "one", "all but one", "a stranger", "none"])
"""Which of a backjob's holds an approval names."""
KEYED: Final = st.sampled_from([False, True, True])
"""Whether a call has a reference."""
PICK: Final = st.integers(0, 31)
"""The choice among existing things."""

Drawn = tuple[str, str, str, str, int, timedelta | None, timedelta | None, str, str | None]
Item = TypeVar("Item")


def amount_text(amount_minor: int, currency: str) -> str:
    """Return an amount as a platform writes it. Some are invalid."""
    if amount_minor == TOO_MANY_PLACES:
        return f"1.{'0' * PLACES[currency]}1"
    return f"{Decimal(amount_minor).scaleb(-PLACES[currency]):f}"


def part_text(part: str, held: int, currency: str) -> str:
    """Return a part of the held amount as a platform writes it, or an invalid amount."""
    amount_minor = {
        "one unit": 1,
        "a third": max(1, held // 3),
        "half": max(1, held // 2),
        "all but one": max(1, held - 1),
        "all": max(1, held),
        "above": held + 1,
        "places": TOO_MANY_PLACES,
        "zero": ZERO,
    }
    return amount_text(amount_minor[part], currency)


def choose(items: Sequence[Item], pick: int) -> Item:
    """Return one of these."""
    return items[pick % len(items)]
