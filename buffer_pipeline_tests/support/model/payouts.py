"""The rules of payouts: requested, batched, approved, sent, paid or returned, cancelled."""

from collections.abc import Collection
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from buffer_pipeline.errors import (
    InsufficientFunds,
    InvalidInput,
    NotAllowed,
    NotFound,
    PayoutRefused,
    ReferenceConflict,
)
from buffer_pipeline.payouts import PayoutResult, RestOfBatch
from buffer_pipeline_tests.support.databases import BOOKS_NUMBER
from buffer_pipeline_tests.support.model.amounts import PLACES, minor
from buffer_pipeline_tests.support.model.books import EXTERNAL
from buffer_pipeline_tests.support.model.debts import DebtModel
from buffer_pipeline_tests.support.model.records import (
    Account,
    Line,
    ModelDestination,
    ModelNotification,
    ModelPayout,
    ModelPayoutBatch,
)

WAIT: Final = timedelta(hours=72)
TRANSIT: Final[Account] = ("TRANSIT", None)


class ModelMarked(NamedTuple):
    """What a file has marked, and the ids of the lines that changed nothing."""

    paid: int
    returned: int
    unknown: frozenset[str]
    conflicting: frozenset[str]
    differing: frozenset[str]


class PayoutModel(DebtModel):
    """The books with payouts."""

    def set_destination(self, owner: str, method: str, account: str, *, now: datetime) -> None:
        """Set where an owner is paid from now on."""
        self.destinations[owner] = ModelDestination(method=method, account=account, set_at=now)

    def request_payout(
        self,
        *,
        owner: str,
        currency: str,
        by: str,
        reference: str,
        now: datetime,
        amount: str | None,
        everything: bool,
        override: bool,
        reason: str | None,
        minimum: str | None,
        payout_id: int | None,
    ) -> ModelPayout:
        """Take money out of a balance, into transit."""
        if (amount is None) != everything:
            raise InvalidInput("an amount, or everything")
        if override != (reason is not None):
            raise InvalidInput("an override has a reason")
        amount_minor = None if amount is None else minor(amount, currency)
        if reference in self.payout_keys:
            known = self.payouts[self.payout_keys[reference]]
            did = (known.owner, known.currency, known.by, known.override_reason, known.everything)
            if did != (owner, currency, by, reason, everything) or amount_minor not in (
                None,
                known.amount_minor,
            ):
                raise ReferenceConflict("already used for another payout")
            return known
        wallet = self.wallets.get((owner, currency))
        if wallet is None:
            raise NotFound("no such wallet")
        if not override and self.frozen_owner(owner) is not None:
            raise PayoutRefused("the owner is frozen")
        if not override and self.open_debts_of(owner):
            raise PayoutRefused("the owner owes a debt")
        if owner not in self.destinations:
            raise PayoutRefused("no destination")
        wanted = wallet.balance_minor if amount_minor is None else amount_minor
        if not 0 < wanted <= wallet.balance_minor:
            raise InsufficientFunds("more than the balance")
        if minimum is not None and wanted < minor(minimum, currency):
            raise PayoutRefused("below the minimum")
        assert payout_id is not None, "the books gave an id"
        payout = ModelPayout(
            payout_id=payout_id,
            owner=owner,
            currency=currency,
            amount_minor=wanted,
            everything=everything,
            by=by,
            override_reason=reason,
            requested_at=now,
        )
        wallet.balance_minor -= wanted
        self.payouts[payout_id], self.payout_keys[reference] = payout, payout_id
        self._payout_line(payout, "PAYOUT", ("BALANCE", owner), TRANSIT, now=now)
        return payout

    def cancel_payout(self, *, payout_id: int, by: str, reason: str, now: datetime) -> ModelPayout:
        """Cancel a payout that is not sent. A batch that loses its last payout is cancelled too."""
        payout = self.payouts.get(payout_id)
        if payout is None:
            raise NotFound("no such payout")
        if payout.cancelled_with == (by, reason):
            return payout
        if payout.state not in ("REQUESTED", "BATCHED"):
            raise PayoutRefused(f"cannot cancel from {payout.state}")
        batch = payout.batch
        if batch is not None and batch.payouts == 1:
            batch.state, batch.done_by["CANCELLED"] = "CANCELLED", (by, reason)
        elif batch is not None:
            batch.payouts -= 1
            batch.amount_minor -= payout.amount_minor
        payout.state, payout.batch, payout.cancelled_with = "CANCELLED", None, (by, reason)
        self._back(payout, "PAYOUT_CANCELLED", TRANSIT, now=now)
        return payout

    def make_payout_batch(
        self,
        *,
        currency: str,
        by: str,
        method: str | None,
        four_eyes_above: str | None,
        now: datetime,
        payout_batch_id: int | None,
    ) -> ModelPayoutBatch:
        """Batch what is requested and can be paid, by one method."""
        taken = [
            payout
            for payout in self.payouts.values()
            if payout.state == "REQUESTED" and payout.currency == currency and self._can_be_paid(payout, now)
        ]
        methods = {self.destinations[payout.owner].method for payout in taken}
        methods &= {"IBAN", "TOKEN"} if method is None else {method}
        if not methods:
            raise PayoutRefused("nothing to pay")
        if len(methods) > 1:
            raise InvalidInput("payouts by two methods")
        named = methods.pop()
        taken = [payout for payout in taken if self.destinations[payout.owner].method == named]
        assert payout_batch_id is not None, "the books gave an id"
        amount_minor = sum(payout.amount_minor for payout in taken)
        limit = None if four_eyes_above is None else Decimal(four_eyes_above).scaleb(PLACES[currency])
        batch = ModelPayoutBatch(
            payout_batch_id=payout_batch_id,
            currency=currency,
            method=named,
            made_by=by,
            four_eyes=limit is None or amount_minor > limit,
            payouts=len(taken),
            amount_minor=amount_minor,
        )
        self.payout_batches[payout_batch_id] = batch
        for payout in taken:
            payout.state, payout.batch = "BATCHED", batch
            payout.destination = self.destinations[payout.owner]
        return batch

    def decide_payout_batch(
        self, state: str, *, payout_batch_id: int, by: str, now: datetime, reason: str | None = None
    ) -> tuple[ModelPayoutBatch, bool]:
        """Approve, send or cancel a batch. Return it, and whether the same person did the same before."""
        batch = self.payout_batches.get(payout_batch_id)
        if batch is None:
            raise NotFound("no such batch")
        if batch.state == state and batch.done_by[state] == (by, reason):
            return batch, True
        if batch.state not in {"APPROVED": ("MADE",), "SENT": ("APPROVED",)}.get(state, ("MADE", "APPROVED")):
            raise PayoutRefused(f"the batch is {batch.state}")
        inside = self.in_batch(batch)
        if state == "APPROVED" and batch.four_eyes and by == batch.made_by:
            raise NotAllowed("its maker approves it")
        if state == "SENT":
            for payout in inside:
                if self._stopped_at(payout.owner, payout if payout.override_reason else None):
                    raise PayoutRefused("an owner is frozen or owes a debt by now")
                newest = self.destinations[payout.owner]
                assert payout.destination is not None
                pinned = payout.destination.method, payout.destination.account
                if (newest.method, newest.account) != pinned:
                    raise PayoutRefused("an owner has another account by now")
        batch.state, batch.done_by[state] = state, (by, reason)
        for payout in inside:
            if state == "SENT":
                payout.state = "SENT"
                self._tell_of_payout(payout, "PAYOUT_SENT", now=now)
            elif state == "CANCELLED":
                payout.state, payout.batch = "REQUESTED", None
        return batch, False

    def mark_payouts(
        self,
        *,
        payout_batch_id: int,
        results: Collection[PayoutResult | RestOfBatch],
        file_digest: bytes,
        now: datetime,
    ) -> ModelMarked:
        """Mark payouts of a sent batch as a file says."""
        if not results:
            return ModelMarked(0, 0, frozenset(), frozenset(), frozenset())
        batch = self.payout_batches.get(payout_batch_id)
        if batch is None:
            raise NotFound("no such batch")
        if batch.state != "SENT":
            raise PayoutRefused(f"the batch is {batch.state}")
        if file_digest in batch.files:
            raise PayoutRefused("the file was imported before")
        here = {end_to_end_id(payout): payout for payout in self.in_batch(batch)}
        paid_lines, returned_lines, rest = _lines(results)
        # A bank that rejects the whole rest never paid it: what was paid is of another upload of the file.
        refuted: set[str] = set()
        if rest is not None:
            if rest.payouts not in (None, batch.payouts):
                raise PayoutRefused("the file speaks of another number of payouts")
            others = here.keys() - paid_lines.keys() - returned_lines.keys()
            (paid_lines if rest.outcome == "PAID" else returned_lines).update(dict.fromkeys(others))
            if rest.outcome == "RETURNED":
                refuted = {id_ for id_ in others if here[id_].state == "PAID"}
        named = paid_lines.keys() | returned_lines.keys()
        if not named & here.keys():
            raise PayoutRefused("no line is of the batch")
        batch.files.add(file_digest)
        differing = {
            id_
            for lines in (paid_lines, returned_lines)
            for id_, amount in lines.items()
            if id_ in here and amount not in (None, _major(here[id_]))
        }
        conflicting = frozenset(
            id_
            for id_ in paid_lines.keys() - returned_lines.keys()
            if id_ in here and here[id_].state == "RETURNED" and not here[id_].was_paid
        ) | frozenset(refuted)
        paid = [
            here[id_] for id_ in paid_lines if id_ in here.keys() - differing and here[id_].state == "SENT"
        ]
        returned = [
            here[id_]
            for id_ in returned_lines
            if id_ in here.keys() - differing - refuted and here[id_].state != "RETURNED"
        ]
        for payout in paid:
            payout.state, payout.was_paid = "PAID", True
            self._payout_line(payout, "PAYOUT_PAID", TRANSIT, EXTERNAL, now=now)
            self._tell_of_payout(payout, "PAYOUT_PAID", now=now)
        for payout in returned:
            source = EXTERNAL if payout.state == "PAID" else TRANSIT
            payout.state = "RETURNED"
            self._back(payout, "PAYOUT_RETURNED", source, now=now)
            self._tell_of_payout(payout, "PAYOUT_RETURNED", now=now)
        return ModelMarked(
            len(paid), len(returned), frozenset(named - here.keys()), conflicting, frozenset(differing)
        )

    def in_batch(self, batch: ModelPayoutBatch) -> list[ModelPayout]:
        """Return the payouts of a batch."""
        return [payout for payout in self.payouts.values() if payout.batch is batch]

    def _can_be_paid(self, payout: ModelPayout, now: datetime) -> bool:
        destination = self.destinations[payout.owner]
        if (
            payout.override_reason is not None
            and destination.set_at <= payout.requested_at
            and not self._stopped_at(payout.owner, payout)
        ):
            return True
        return destination.set_at <= now - WAIT and not self._stopped_at(payout.owner, None)

    def _stopped_at(self, owner: str, overridden: ModelPayout | None) -> bool:
        """Return True if the owner is frozen or owes a debt: with an override, since it was requested."""
        freeze = self.frozen_owner(owner)
        since = [debt.opened_at for debt in self.open_debts_of(owner)]
        if freeze is not None:
            since.append(freeze.opened_at)
        return any(overridden is None or moment > overridden.requested_at for moment in since)

    def _back(self, payout: ModelPayout, type_: str, source: Account, *, now: datetime) -> None:
        self._wallet(payout.owner, payout.currency).balance_minor += payout.amount_minor
        self._payout_line(payout, type_, source, ("BALANCE", payout.owner), now=now)

    def _payout_line(
        self, payout: ModelPayout, type_: str, source: Account, target: Account, *, now: datetime
    ) -> None:
        self.lines.append(
            Line(type_, source, target, payout.currency, payout.amount_minor, now, payout_id=payout.payout_id)
        )

    def _tell_of_payout(self, payout: ModelPayout, type_: str, *, now: datetime) -> None:
        self.notifications.append(
            ModelNotification(
                type_,
                payout.owner,
                now,
                currency=payout.currency,
                amount_minor=payout.amount_minor,
                payout_id=payout.payout_id,
            )
        )


def end_to_end_id(payout: ModelPayout) -> str:
    """Return the id of a payout in a bank's files."""
    return f"PAYOUT-{BOOKS_NUMBER}-{payout.payout_id}"


def _major(payout: ModelPayout) -> Decimal:
    return Decimal(payout.amount_minor).scaleb(-PLACES[payout.currency])


def _lines(
    results: Collection[PayoutResult | RestOfBatch],
) -> tuple[dict[str, Decimal | None], dict[str, Decimal | None], RestOfBatch | None]:
    """Return the amounts of what is paid and of what is returned, and what is said of the rest.

    What was paid can be returned by a later line. What was returned and is then paid was not returned.
    """
    paid: dict[str, Decimal | None] = {}
    returned: dict[str, Decimal | None] = {}
    rest = None
    for result in results:
        if isinstance(result, RestOfBatch):
            rest = result
        elif result.outcome == "PAID":
            paid[result.end_to_end_id] = result.amount
            returned.pop(result.end_to_end_id, None)
        else:
            returned[result.end_to_end_id] = result.amount
    return paid, returned, rest
