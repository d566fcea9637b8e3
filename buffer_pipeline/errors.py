"""The exceptions: refusals of a request, wrong settings, and wrong books.

Every message names the thing, the fact and what is allowed.
"""

from collections.abc import Iterable
from datetime import datetime


class PaymentBufferError(Exception):
    """Base class of all exceptions that the payment buffer raises on purpose."""


class SettingError(PaymentBufferError):
    """A setting is missing or wrong; the message starts with its name."""


class BooksOutOfBalance(PaymentBufferError):
    """The credited amount differs from the held amount: roll back and reconcile."""


class HourInProgress(PaymentBufferError):
    """An hour cannot be counted yet, because a transaction that writes into it has not ended."""

    def __init__(self, hour: datetime) -> None:
        self.hour = hour
        super().__init__(f"hour {hour:%Y-%m-%dT%H:%MZ}: a transaction still writes into it; count it later")


class Refused(PaymentBufferError):
    """A request that breaks a rule. Nothing was written.

    What the message names is also in attributes: the ids, the `owner` of the wallet, the name of the `rule`,
    the `state` that forbids the request, and what is `allowed` instead. An attribute is None or empty if it
    does not apply.
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
        rule: str | None = None,
        payout_id: int | None = None,
        payout_batch_id: int | None = None,
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
        self.rule = rule
        self.payout_id = payout_id
        self.payout_batch_id = payout_batch_id
        self.state = state
        self.allowed = tuple(allowed)
        super().__init__(message)


class InvalidInput(Refused, ValueError):
    """A value that is never accepted, whatever the state of the books."""


class NotFound(Refused, LookupError):
    """No such hold, backjob, freeze, job, wallet, hold rule, payout or batch of payouts."""


class ReferenceConflict(Refused):
    """The reference was used before with other content."""


class JobConflict(Refused):
    """The job has another payer."""


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
    """A backjob was requested at or after the release date."""


class BackjobRefused(Refused):
    """A backjob is open already, is decided already, or would exceed the limit of the job."""


class FreezeRefused(Refused):
    """An open freeze forbids the request, or a freeze cannot be closed in this way."""


class DateRefused(Refused):
    """A hold cannot be moved to this release date, or its payer cannot release it yet.

    A date is too early, too late, or the present one.
    """


class RuleRefused(Refused):
    """A hold rule is retired, assigned to owners, of another currency, leaves nothing for the payee, or keeps
    the fee that is to be refunded."""


class DebtRefused(Refused):
    """A debt is closed, or the owner has none."""


class PayoutRefused(Refused):
    """A payout or a batch of payouts is in a state that does not allow the request, has no destination, is
    below the minimum, or its owner is frozen or owes a debt; or a status file does not fit its batch."""


class NotAllowed(Refused):
    """The caller may not do this."""


class InsufficientFunds(Refused):
    """The amount is more than there is."""


class WalletFull(Refused):
    """A wallet cannot take an amount: its balance and pending earnings together must fit a bigint."""


class ClockRefused(Refused):
    """The books are no sandbox or cannot become one, or another advance of their clock is running."""
