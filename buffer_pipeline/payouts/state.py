"""The states of payouts and their batches, and the tables of allowed transitions. Pure."""

from enum import StrEnum
from typing import Final


class PayoutState(StrEnum):
    """The state of a payout. RETURNED and CANCELLED are final; a bank can return what it reported as paid."""

    REQUESTED = "REQUESTED"
    BATCHED = "BATCHED"
    SENT = "SENT"
    PAID = "PAID"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"


class PayoutVerb(StrEnum):
    """What can be done with a payout."""

    BATCH = "batch"
    UNBATCH = "take out of a cancelled batch"
    CANCEL = "cancel"
    SEND = "send"
    PAY = "mark as paid"
    RETURN = "mark as returned"


NEXT_PAYOUT_STATE: Final = {
    (PayoutState.REQUESTED, PayoutVerb.BATCH): PayoutState.BATCHED,
    (PayoutState.REQUESTED, PayoutVerb.CANCEL): PayoutState.CANCELLED,
    (PayoutState.BATCHED, PayoutVerb.UNBATCH): PayoutState.REQUESTED,
    (PayoutState.BATCHED, PayoutVerb.CANCEL): PayoutState.CANCELLED,
    (PayoutState.BATCHED, PayoutVerb.SEND): PayoutState.SENT,
    (PayoutState.SENT, PayoutVerb.PAY): PayoutState.PAID,
    (PayoutState.SENT, PayoutVerb.RETURN): PayoutState.RETURNED,
    (PayoutState.PAID, PayoutVerb.RETURN): PayoutState.RETURNED,
}
"""A pair that is not in the table is refused. The trigger `payout_moves_on` has the same pairs of states."""

OPEN_PAYOUT: Final = (PayoutState.REQUESTED, PayoutState.BATCHED, PayoutState.SENT)
"""The states in which the money is in transit."""


class PayoutBatchState(StrEnum):
    """The state of a batch of payouts. SENT and CANCELLED are final."""

    MADE = "MADE"
    APPROVED = "APPROVED"
    SENT = "SENT"
    CANCELLED = "CANCELLED"


class PayoutBatchVerb(StrEnum):
    """What can be done with a batch of payouts."""

    APPROVE = "approve"
    SEND = "send"
    CANCEL = "cancel"


NEXT_BATCH_STATE: Final = {
    (PayoutBatchState.MADE, PayoutBatchVerb.APPROVE): PayoutBatchState.APPROVED,
    (PayoutBatchState.MADE, PayoutBatchVerb.CANCEL): PayoutBatchState.CANCELLED,
    (PayoutBatchState.APPROVED, PayoutBatchVerb.SEND): PayoutBatchState.SENT,
    (PayoutBatchState.APPROVED, PayoutBatchVerb.CANCEL): PayoutBatchState.CANCELLED,
}
"""A pair that is not in the table is refused. The trigger `payout_batch_moves_on` has the same pairs."""


OPEN_BATCH: Final = (PayoutBatchState.MADE, PayoutBatchState.APPROVED)
"""The states from which a batch is sent or cancelled. The others never change."""


def payout_states_that_allow(verb: PayoutVerb) -> tuple[PayoutState, ...]:
    """Return the states of a payout from which `verb` is allowed."""
    return tuple(state for state, allowed_verb in NEXT_PAYOUT_STATE if allowed_verb is verb)


def batch_states_that_allow(verb: PayoutBatchVerb) -> tuple[PayoutBatchState, ...]:
    """Return the states of a batch from which `verb` is allowed."""
    return tuple(state for state, allowed_verb in NEXT_BATCH_STATE if allowed_verb is verb)
