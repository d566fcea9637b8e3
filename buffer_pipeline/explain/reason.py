"""What an explanation consists of: reasons, and what would shorten them. Pure: no database, no clock."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.reads import Hold


class ReasonCode(StrEnum):
    """Why a hold is where it is. The codes are stable: a program may compare them."""

    IN_WINDOW = "IN_WINDOW"
    RESERVE = "RESERVE"
    WAITS_FOR_NEXT_RUN = "WAITS_FOR_NEXT_RUN"
    BACKJOB_OPEN = "BACKJOB_OPEN"
    ADMIN_FREEZE = "ADMIN_FREEZE"
    RISK_FREEZE = "RISK_FREEZE"
    OWNER_FROZEN = "OWNER_FROZEN"
    NO_OPEN_FREEZE = "NO_OPEN_FREEZE"
    """FROZEN without an open freeze: only in damaged books."""
    OWES_DEBT = "OWES_DEBT"
    DATE_MOVED = "DATE_MOVED"
    PART_RELEASED = "PART_RELEASED"
    PART_REFUNDED = "PART_REFUNDED"
    RELEASED = "RELEASED"
    RELEASED_EARLY = "RELEASED_EARLY"
    REFUNDED = "REFUNDED"
    RECOVERED_FOR_DEBT = "RECOVERED_FOR_DEBT"
    CLAWED_BACK = "CLAWED_BACK"


class Actor(StrEnum):
    """Who can do something about a hold."""

    PAYER = "PAYER"
    ADMIN = "ADMIN"
    OPERATOR = "OPERATOR"


class WayVerb(StrEnum):
    """What can be done about a hold: the name of a verb."""

    RELEASE_EARLY = "release_early"
    RELEASE_MATURED = "release_matured"
    REJECT_BACKJOB = "reject_backjob"
    WITHDRAW_BACKJOB = "withdraw_backjob"
    UNFREEZE_HOLD = "unfreeze_hold"
    UNFREEZE_OWNER = "unfreeze_owner"


@dataclass(frozen=True, kw_only=True)
class Way:
    """Something that would shorten the wait: a verb, who may do it, and what then happens.

    `target_id` is the hold, backjob, freeze or owner's freeze that the verb is called with. It is possible
    from `possible_from` on, None for now. Done then, the money is released at `released_at`: at that moment
    if `at_once`, otherwise by the release run of that hour. `released_at` is None if other freezes still keep
    the hold: `still_kept_by` has their codes.
    """

    verb: WayVerb
    who: Actor
    target_id: int
    possible_from: datetime | None = None
    released_at: datetime | None = None
    at_once: bool = False
    still_kept_by: tuple[ReasonCode, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One reason, with `since` when it holds and `until` when it ends by itself, None if somebody decides.

    `by` and `reason` are internal, and for operators only. `payee_text` is what somebody wrote for the payee.
    `amount_minor` is what a part, a refund, a claw-back or a debt is about; of OWES_DEBT what is outstanding
    now, of RECOVERED_FOR_DEBT what the release of this payee's holds paid. `backjob_until` of IN_WINDOW is
    until when a backjob can be requested that freezes the hold, None if it cannot be. DATE_MOVED has the
    release date before the move as `from_date`, and after it as `to_date`.
    """

    code: ReasonCode
    since: datetime | None = None
    until: datetime | None = None
    by: str | None = None
    reason: str | None = None
    payee_text: str | None = None
    amount_minor: int | None = None
    backjob_id: int | None = None
    backjob_until: datetime | None = None
    from_date: datetime | None = None
    to_date: datetime | None = None
    freeze_id: int | None = None
    owner_freeze_id: int | None = None
    ways: tuple[Way, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why a hold is held, or what became of it, as of `at`.

    `released_at` is the hour of the release run that takes the hold if nobody does anything, None if it is
    frozen or settled.
    """

    hold: Hold
    at: datetime
    released_at: datetime | None
    reasons: tuple[Reason, ...]


def run_at(release_date: datetime, *, now: datetime) -> datetime:
    """Return the hour of the first release run from `now` on that takes a hold with this release date.

    A run begins on the full hour and takes what is due then.
    """
    due = max(release_date, now)
    hour = hour_of(due)
    return hour if hour == due else hour + HOUR
