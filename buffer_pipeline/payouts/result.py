"""What a bank says of a payout."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum


class Outcome(StrEnum):
    """How a payout ended."""

    PAID = "PAID"
    RETURNED = "RETURNED"


@dataclass(frozen=True, kw_only=True, slots=True)
class PayoutResult:
    """One line of a status file. A returned payout has the bank's reason, a paid one has none.

    `amount` is in the currency's major unit. It and `currency` are None if the file does not say them;
    otherwise they must be those of the payout.
    `unordered`: the file lists bookings in any order, so a payout that it has as paid and as returned was
    paid first. Otherwise the last line of a payout counts.
    `rejected`: the bank has not taken a RETURNED payout at all. That cannot follow a payment, so it takes
    back no payout that is PAID.
    """

    end_to_end_id: str
    outcome: Outcome | str
    reason: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    unordered: bool = False
    rejected: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RestOfBatch:
    """What a status file says of all payouts of its batch together that no line of it names.

    RETURNED of all together is a rejection, which takes back no payout that is PAID.
    `named` are the ids of lines that have a status of their own which is not final. `payouts` is how many the
    file says that the batch has, None if it does not say so.
    """

    outcome: Outcome | str
    reason: str | None = None
    named: frozenset[str] = frozenset()
    payouts: int | None = None
