"""The numbers in the rules that a marketplace can choose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.money import parse_amount

BUFFER_DAYS_MAX: Final = 3650
BACKJOBS_PER_JOB_MAX: Final = 1000
COOLDOWN_HOURS_MAX: Final = 43_800
"""Five years. Even after BACKJOBS_PER_JOB_MAX rejections, a release date is before the year 10000."""
STUCK_AFTER_HOURS_MAX: Final = 87_600
MIN_DAYS_MAX: Final = BUFFER_DAYS_MAX
DESTINATION_WAIT_HOURS_MAX: Final = 8_760
PAYOUT_ANSWER_DAYS_MAX: Final = 365
PAYOUT_APPROVAL_HOURS_MAX: Final = 8_760
PAYOUT_BATCH_DAYS_MAX: Final = 365
RESCHEDULE_DAYS_MAX: Final = 90
"""A hold is moved to at most so many days after its original release date. The invariant
`release_date_is_explained` has the same number."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How long a hold waits, and how many backjobs of a job may be rejected. 0 means 0, not "no limit".

    Raises:
        InvalidInput: a number below zero, or so large that a date could be after the year 9999.
    """

    buffer_days: int = 7
    cooldown_hours: int = 24
    max_backjobs_per_job: int = 3
    stuck_after_hours: int = 72
    min_days: int = 0
    """A payer releases no hold before so many days after `held_at`, and moves no release date to before; an
    admin may. A hold's rule can have its own number, as of the cooldown and of the backjobs."""

    def __post_init__(self) -> None:
        for name, largest in (
            ("buffer_days", BUFFER_DAYS_MAX),
            ("cooldown_hours", COOLDOWN_HOURS_MAX),
            ("max_backjobs_per_job", BACKJOBS_PER_JOB_MAX),
            ("stuck_after_hours", STUCK_AFTER_HOURS_MAX),
            ("min_days", MIN_DAYS_MAX),
        ):
            if not 0 <= getattr(self, name) <= largest:
                raise InvalidInput(f"{name}: must be from 0 to {largest}")

    @property
    def buffer(self) -> timedelta:
        """The time from `held_at` to the release date."""
        return timedelta(days=self.buffer_days)

    @property
    def cooldown(self) -> timedelta:
        """What a rejected backjob adds to the release date."""
        return timedelta(hours=self.cooldown_hours)

    @property
    def minimum(self) -> timedelta:
        """The time from `held_at` to the earliest date at which a payer may release a hold, or move it to."""
        return timedelta(days=self.min_days)

    @property
    def stuck_after(self) -> timedelta:
        """How long a hold may stay frozen before it counts as stuck."""
        return timedelta(hours=self.stuck_after_hours)


@dataclass(frozen=True, kw_only=True)
class PayoutPolicy:
    """What a marketplace chooses about payouts. Amounts are text in the major unit, by currency.

    Raises:
        InvalidInput: hours or days below zero, or above a year.
    """

    minimums: Mapping[str, str] = field(default_factory=dict)
    """A smaller payout is refused. A currency that is not here has no minimum."""
    destination_wait_hours: int = 72
    """A payout waits so long after its destination was set."""
    four_eyes_above: Mapping[str, str] = field(default_factory=dict)
    """A batch of a larger amount is approved by somebody else than who made it. A batch in a currency that is
    not here always is."""
    answer_days: int = 5
    """A payout counts as stuck if no status file came for it so long after it was sent."""
    approval_hours: int = 24
    """A batch counts as stuck if nobody approves it for so long, or sends it so long after its approval."""
    batch_days: int = 7
    """A payout counts as stuck if no batch has taken it so long after it was requested."""

    def __post_init__(self) -> None:
        for name, largest in (
            ("destination_wait_hours", DESTINATION_WAIT_HOURS_MAX),
            ("answer_days", PAYOUT_ANSWER_DAYS_MAX),
            ("approval_hours", PAYOUT_APPROVAL_HOURS_MAX),
            ("batch_days", PAYOUT_BATCH_DAYS_MAX),
        ):
            if not 0 <= getattr(self, name) <= largest:
                raise InvalidInput(f"{name}: must be from 0 to {largest}")

    @property
    def destination_wait(self) -> timedelta:
        """How long a payout waits after its destination was set."""
        return timedelta(hours=self.destination_wait_hours)

    @property
    def answer(self) -> timedelta:
        """How long after it was sent a payout may be without an answer of the bank."""
        return timedelta(days=self.answer_days)

    @property
    def approval(self) -> timedelta:
        """How long a batch may wait for its approval, and then for its sending."""
        return timedelta(hours=self.approval_hours)

    @property
    def batch(self) -> timedelta:
        """How long after its request a payout may be without a batch."""
        return timedelta(days=self.batch_days)

    def minimum_minor(self, currency: str, places: int) -> int:
        """Return the smallest payout in a currency, in minor units.

        Raises:
            InvalidInput: the amount of the setting has more places than the currency.
        """
        minimum = self.minimums.get(currency)
        return 1 if minimum is None else parse_amount(minimum, currency, places)

    def needs_four_eyes(self, amount_minor: int, currency: str, places: int) -> bool:
        """Return True if somebody else than its maker has to approve a batch of this amount.

        Raises:
            InvalidInput: the amount of the setting has more places than the currency.
        """
        above = self.four_eyes_above.get(currency)
        return above is None or amount_minor > parse_amount(above, currency, places)
