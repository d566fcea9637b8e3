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
    """A request that breaks a rule. Nothing was written."""


class InvalidInput(Refused, ValueError):
    """A value that can never be accepted, whatever the state of the books."""


class NotFound(Refused, LookupError):
    """No such hold, backjob, freeze, job or wallet."""


class ReferenceConflict(Refused):
    """The reference was used before, with other content."""


class StateRefused(Refused):
    """A hold is in a state that does not allow the verb."""

    def __init__(self, *, hold_id: int, state: str, verb: str, allowed: Iterable[str]) -> None:
        self.hold_id = hold_id
        self.state = state
        self.verb = verb
        self.allowed = tuple(allowed)
        super().__init__(
            f"hold {hold_id}: cannot {verb} from {state}; that needs {' or '.join(self.allowed)}"
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
