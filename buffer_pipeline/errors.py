"""What the payment buffer refuses, and what it raises when the books are wrong.

Every message names the thing, the fact and what is allowed.
"""

from collections.abc import Iterable
from datetime import datetime


class PaymentBufferError(Exception):
    """Anything that the payment buffer raises on purpose."""


class SettingError(PaymentBufferError):
    """A setting is missing or wrong; the message starts with its name."""


class BooksOutOfBalance(PaymentBufferError):
    """What was credited differs from what was held: roll back and reconcile."""


class HourInProgress(PaymentBufferError):
    """An hour cannot be counted yet: a transaction that writes into it has not ended."""

    def __init__(self, hour: datetime) -> None:
        self.hour = hour
        super().__init__(f"hour {hour:%Y-%m-%dT%H:%MZ}: a transaction still writes into it; count it later")


class Refused(PaymentBufferError):
    """A request that breaks a rule. Nothing was written.

    What the message names is here as attributes too, None or empty where the refusal is not about it:
    the ids, the `owner` of the wallet, the `state` that stands in the way, and what is `allowed` instead.
    """

    def __init__(
        self,
        message: str,
        *,
        hold_id: int | None = None,
        job: str | None = None,
        backjob_id: int | None = None,
        freeze_ids: Iterable[int] = (),
        transaction_id: int | None = None,
        notification_id: int | None = None,
        owner: str | None = None,
        reference: str | None = None,
        state: str | None = None,
        allowed: Iterable[str] = (),
    ) -> None:
        self.hold_id = hold_id
        self.job = job
        self.backjob_id = backjob_id
        self.freeze_ids = tuple(freeze_ids)
        self.transaction_id = transaction_id
        self.notification_id = notification_id
        self.owner = owner
        self.reference = reference
        self.state = state
        self.allowed = tuple(allowed)
        super().__init__(message)


class InvalidInput(Refused, ValueError):
    """A value that can never be accepted, whatever the state of the books."""


class NotFound(Refused, LookupError):
    """No such hold, backjob, freeze, job or wallet."""


class ReferenceConflict(Refused):
    """The reference was used before, with other content."""


class JobConflict(Refused):
    """The job belongs to another payer."""


class StateRefused(Refused):
    """A hold is in a state that does not allow the verb."""

    def __init__(self, *, hold_id: int, state: str, verb: str, allowed: Iterable[str]) -> None:
        states = tuple(allowed)
        self.verb = verb
        super().__init__(
            f"hold {hold_id}: cannot {verb} from {state}; that needs {' or '.join(states)}",
            hold_id=hold_id,
            state=state,
            allowed=states,
        )


class WindowClosed(Refused):
    """A backjob was asked for at or after the release date."""


class BackjobRefused(Refused):
    """A backjob is open already, decided already, or one too many."""


class FreezeRefused(Refused):
    """A freeze stands in the way, or is not of the kind that may be closed so."""


class NotAllowed(Refused):
    """The person who asks may not have this."""


class InsufficientFunds(Refused):
    """More was asked for than is there."""


class WalletFull(Refused):
    """A wallet cannot take an amount: balance and pending earnings together end where a bigint does."""
