"""What the lines of a status file say, payout by payout. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import require_text
from buffer_pipeline.payouts.bank_ids import BankIds
from buffer_pipeline.payouts.result import Outcome, PayoutResult, RestOfBatch
from buffer_pipeline.payouts.state import PayoutState

_REASON_LENGTH_MAX: Final = 500
_NO_REASON: Final = "no reason given"


@dataclass(frozen=True, slots=True)
class _Line:
    """What counts of a payout's lines. The reason is that of a return."""

    amount: Decimal | None = None
    currency: str | None = None
    reason: str = _NO_REASON
    rejected: bool = False


@dataclass
class Said:
    """The payouts that a file has as paid, and those that it has as returned.

    `rest` is what it says of all others together, and `pending` are those that this does not mean.
    """

    paid: dict[int, _Line] = field(default_factory=dict)
    returned: dict[int, _Line] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    rest: RestOfBatch | None = None
    pending: set[int] = field(default_factory=set)

    @property
    def named(self) -> set[int]:
        """The payouts of which the file says something."""
        return self.paid.keys() | self.returned.keys()

    @property
    def is_empty(self) -> bool:
        """Return True if the file says nothing final."""
        return not (self.paid or self.returned or self.unknown or self.rest)

    def say_of_the_rest(self, payout_ids: Iterable[int]) -> None:
        """Add what the file says of all others, for those of `payout_ids` that are others."""
        if self.rest is None:
            return
        others = set(payout_ids) - self.named - self.pending
        if self.rest.outcome == Outcome.PAID:
            self.paid.update(dict.fromkeys(others, _Line()))
        else:
            self.returned.update(
                dict.fromkeys(others, _Line(reason=_reason(self.rest.reason), rejected=True))
            )

    def is_refuted(self, payout_id: int, state: str) -> bool:
        """Return True if a payout in this state is rejected, but was paid by the books or by the file.

        If a file was uploaded twice, the bank pays the first one and rejects the second.
        """
        line = self.returned.get(payout_id)
        if line is None or not line.rejected:
            return False
        return state == PayoutState.PAID or payout_id in self.paid

    def differs(self, payout_id: int, amount_minor: int, currency: str, places: int) -> bool:
        """Return True if a line of a payout has another amount or currency than the books have."""
        amount = Decimal(amount_minor).scaleb(-places)
        lines = (said[payout_id] for said in (self.paid, self.returned) if payout_id in said)
        return any(
            line.amount not in {None, amount} or line.currency not in {None, currency} for line in lines
        )


def read_results(results: Iterable[PayoutResult | RestOfBatch], ids: BankIds) -> Said:
    """Return what the results say.

    Raises:
        InvalidInput: an outcome that is neither PAID nor RETURNED, two results of the rest, or an id that
            cannot be stored.
    """
    said = Said()
    for result in results:
        if result.outcome not in {*Outcome}:
            named = "rest" if isinstance(result, RestOfBatch) else repr(result.end_to_end_id)
            raise InvalidInput(f"payout {named}: outcome {result.outcome!r} is not PAID or RETURNED")
        if isinstance(result, RestOfBatch):
            if said.rest is not None:
                raise InvalidInput("payouts: two results of the rest of the batch")
            said.rest = result
            said.pending = {id_ for text in result.named if (id_ := ids.payout_of(text)) is not None}
            continue
        line = _Line(result.amount, result.currency, _reason(result.reason), result.rejected)
        payout_id = ids.payout_of(result.end_to_end_id)
        if payout_id is None:
            # It is stored, so that a person can look at it later.
            said.unknown.append(require_text("end_to_end_id", result.end_to_end_id))
        elif result.outcome == Outcome.PAID:
            said.paid[payout_id] = line
            if not result.unordered:
                said.returned.pop(payout_id, None)
        else:
            said.returned[payout_id] = line
    return said


def _reason(given: str | None) -> str:
    """Return the bank's reason as one line that can be stored and shown."""
    shown = "".join(character if character.isprintable() else " " for character in given or "")
    return " ".join(shown.split())[:_REASON_LENGTH_MAX].strip() or _NO_REASON
