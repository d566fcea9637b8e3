"""The states of a hold and the one table of allowed transitions. Pure: no database, no clock."""

from enum import StrEnum
from typing import Final


class HoldState(StrEnum):
    """The state of a hold. RELEASED and REFUNDED are final."""

    BUFFERED = "BUFFERED"
    FROZEN = "FROZEN"
    RELEASED = "RELEASED"
    REFUNDED = "REFUNDED"


class Verb(StrEnum):
    """What can be done with a hold."""

    RELEASE = "release"
    RELEASE_EARLY = "release early"
    RELEASE_PART = "release a part early"
    RESCHEDULE = "reschedule"
    FREEZE = "freeze"
    RESUME = "resume"
    REFUND = "refund"
    REFUND_PARTLY = "refund partly"
    REFUND_ALONE = "refund without a backjob"
    REFUND_ALONE_PARTLY = "refund partly without a backjob"


class FreezeKind(StrEnum):
    """Why a hold may not be released."""

    BACKJOB = "BACKJOB"
    ADMIN = "ADMIN"
    RISK = "RISK"


class BackjobState(StrEnum):
    """The state of a backjob."""

    OPEN = "OPEN"
    REJECTED = "REJECTED"
    APPROVED = "APPROVED"
    WITHDRAWN = "WITHDRAWN"


NEXT_STATE: Final = {
    (HoldState.BUFFERED, Verb.RELEASE): HoldState.RELEASED,
    (HoldState.BUFFERED, Verb.RELEASE_EARLY): HoldState.RELEASED,
    (HoldState.BUFFERED, Verb.RELEASE_PART): HoldState.BUFFERED,  # The rest keeps waiting.
    (HoldState.BUFFERED, Verb.RESCHEDULE): HoldState.BUFFERED,
    (HoldState.FROZEN, Verb.RESCHEDULE): HoldState.FROZEN,  # The date counts once the hold resumes.
    (HoldState.BUFFERED, Verb.FREEZE): HoldState.FROZEN,
    (HoldState.FROZEN, Verb.FREEZE): HoldState.FROZEN,  # Freezes stack.
    (HoldState.FROZEN, Verb.RESUME): HoldState.BUFFERED,  # Once the last freeze is closed.
    (HoldState.FROZEN, Verb.REFUND): HoldState.REFUNDED,
    (HoldState.FROZEN, Verb.REFUND_PARTLY): HoldState.BUFFERED,  # The rest keeps waiting.
    (HoldState.FROZEN, Verb.REFUND_ALONE): HoldState.REFUNDED,
    (HoldState.FROZEN, Verb.REFUND_ALONE_PARTLY): HoldState.FROZEN,  # Its freezes stay open.
}
"""A pair that is not in the table is refused."""

UNSETTLED: Final = (HoldState.BUFFERED, HoldState.FROZEN)


def states_that_allow(verb: Verb) -> tuple[HoldState, ...]:
    """Return the states from which `verb` is allowed."""
    return tuple(state for state, allowed_verb in NEXT_STATE if allowed_verb is verb)
