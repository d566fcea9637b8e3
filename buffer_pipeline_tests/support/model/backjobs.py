"""The rules of backjobs: requested, rejected, withdrawn, approved."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from buffer_pipeline.errors import (
    BackjobRefused,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotAllowed,
    NotFound,
    RuleRefused,
    WindowClosed,
)
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.model.amounts import largest_remainder, minor
from buffer_pipeline_tests.support.model.books import ModelBooks, in_order
from buffer_pipeline_tests.support.model.records import ModelBackjob, ModelHold, ModelNotification

COOLDOWN_HOURS: Final = 24
MAX_BACKJOBS: Final = 3
PAYEES: Final = (ShareKind.PAYEE, ShareKind.RESERVE)
"""The kinds of shares whose owners are notified of a backjob."""


class BackjobModel(ModelBooks):
    """The books with a client's request and its decision."""

    def request_backjob(
        self,
        *,
        job: str,
        by: str,
        reason: str,
        now: datetime,
        payer: str | None,
        reference: str | None,
        backjob_id: int | None,
        freeze_ids: dict[int, int],
    ) -> ModelBackjob:
        """Freeze the job's unsettled holds with an open window. `freeze_ids` are by hold."""
        known = self._known("request", reference, (job, by, reason))
        if known is not None:
            return self.backjobs[known]
        holds = self.holds_of(job)
        if not holds:
            raise NotFound("no hold of this job")
        if payer not in (None, self.jobs[job]):
            raise NotAllowed("job of another payer")
        waiting = [hold for hold in holds if hold.settled is None]
        if not waiting:
            raise WindowClosed("all is settled")
        states = [backjob.state for backjob in self.backjobs.values() if backjob.job == job]
        if BackjobState.OPEN in states:
            raise BackjobRefused("another one is open")
        rejected = states.count(BackjobState.REJECTED)
        in_window = [hold for hold in waiting if now < hold.release_date and window_is_open(hold, now)]
        candidates = in_window or waiting
        allowed = [hold for hold in candidates if rejected < hold.terms.get("max_backjobs", MAX_BACKJOBS)]
        if not allowed:
            raise BackjobRefused("too many were rejected")
        if not in_window:
            raise WindowClosed("the release date is reached")
        in_window = allowed

        assert backjob_id is not None, "the books gave an id"
        for hold in in_window:
            self._freeze(hold, freeze_ids[hold.hold_id], FreezeKind.BACKJOB, now=now, backjob_id=backjob_id)
        for payee in {hold.owner for hold in in_window if hold.kind in PAYEES}:
            self.notifications.append(
                ModelNotification("BACKJOB_RECEIVED", payee, now, backjob_id=backjob_id)
            )
        self.backjobs[backjob_id] = ModelBackjob(backjob_id=backjob_id, job=job, holds=in_window)
        self._keep("request", reference, (job, by, reason), backjob_id)
        return self.backjobs[backjob_id]

    def decide_backjob(
        self,
        state: BackjobState,
        *,
        backjob_id: int,
        by: str,
        reason: str,
        now: datetime,
        reference: str | None,
        amount: str | None = None,
        hold_ids: Collection[int] | None = None,
    ) -> ModelBackjob:
        """Reject, withdraw or approve a backjob."""
        if hold_ids is not None and not hold_ids:
            raise InvalidInput("names no hold")
        content = (state, backjob_id, by, reason)
        known = self._known("decision", reference, content)
        if known is not None:
            return self.backjobs[known]
        backjob = self._open_backjob(backjob_id)
        if state is BackjobState.APPROVED:
            self._approve_backjob(backjob, now=now, amount=amount, hold_ids=hold_ids)
        elif state is BackjobState.REJECTED:
            self._reject_backjob(backjob, now=now)
        else:
            self._withdraw_backjob(backjob, now=now)
        self._keep("decision", reference, content, backjob_id)
        return backjob

    def _reject_backjob(self, backjob: ModelBackjob, *, now: datetime) -> None:
        """Thaw the holds without another freeze, due a cooldown after their date, or after now if that is
        later.
        """
        backjob.state = BackjobState.REJECTED
        for hold in self._thaw(backjob):
            cooldown = timedelta(hours=hold.terms.get("cooldown_hours", COOLDOWN_HOURS))
            hold.release_date = max(hold.release_date, now) + cooldown
            self._notify_resumed(hold, now, backjob.backjob_id)
        for owner in _concerned(backjob):
            self.notifications.append(
                ModelNotification("BACKJOB_REJECTED", owner, now, backjob_id=backjob.backjob_id)
            )

    def _withdraw_backjob(self, backjob: ModelBackjob, *, now: datetime) -> None:
        """Thaw the holds without another freeze, due on their own date."""
        backjob.state = BackjobState.WITHDRAWN
        for hold in self._thaw(backjob):
            self._notify_resumed(hold, now, backjob.backjob_id)

    def _approve_backjob(
        self, backjob: ModelBackjob, *, now: datetime, amount: str | None, hold_ids: Collection[int] | None
    ) -> None:
        """Refund everything, the named holds, or a part in proportion. The rest waits on."""
        holds = in_order(backjob.holds)
        if any(freeze.is_open and freeze.backjob_id is None for hold in holds for freeze in hold.freezes):
            raise FreezeRefused("another freeze is open")
        named = [hold for hold in holds if hold_ids is None or hold.hold_id in hold_ids]
        if hold_ids is not None and len(named) < len(set(hold_ids)):
            raise NotFound("does not freeze this hold")
        amount_minor = None
        if amount is not None:
            currencies = {hold.intake.currency for hold in named}
            if len(currencies) > 1:
                raise InvalidInput("a part of several currencies")
            amount_minor = minor(amount, currencies.pop())
        shares = split_refund(holds, named, amount_minor)

        backjob.state = BackjobState.APPROVED
        backjob.refunded_minor = sum(shares)
        self._thaw(backjob)
        # Recipients are chosen before anything is settled. A payer gets one message per earning.
        notified = [self._is_notified(hold) for hold in holds]
        for_payer: dict[int, int] = {}
        for hold, share, is_notified in zip(holds, shares, notified, strict=True):
            if share:
                self._refund(hold, share, now=now, backjob_id=backjob.backjob_id)
                first_id = hold.earning.first.hold_id
                for_payer[first_id] = for_payer.get(first_id, 0) + share
            if share and is_notified:
                self._notify("PAYMENT_REFUNDED", hold.owner, now, hold, share, backjob_id=backjob.backjob_id)
            if hold.held_minor and is_notified:
                self._notify_of_rest(hold, now, backjob.backjob_id)
        for first_id, sum_minor in for_payer.items():
            first = self.holds[first_id]
            self._notify(
                "PAYMENT_REFUNDED", first.intake.payer, now, first, sum_minor, backjob_id=backjob.backjob_id
            )
        for owner in _concerned(backjob):
            self.notifications.append(
                ModelNotification("BACKJOB_APPROVED", owner, now, backjob_id=backjob.backjob_id)
            )

    def _open_backjob(self, backjob_id: int) -> ModelBackjob:
        backjob = self.backjobs.get(backjob_id)
        if backjob is None:
            raise NotFound("no such backjob")
        if backjob.state is not BackjobState.OPEN:
            raise BackjobRefused("already decided")
        return backjob

    def _thaw(self, backjob: ModelBackjob) -> list[ModelHold]:
        """Close a backjob's freezes and return the holds that no freeze covers any more."""
        for hold in backjob.holds:
            for freeze in hold.freezes:
                if freeze.backjob_id == backjob.backjob_id:
                    freeze.is_open = False
        return [hold for hold in backjob.holds if hold.state is HoldState.BUFFERED]


def _concerned(backjob: ModelBackjob) -> set[str]:
    payees = {hold.owner for hold in backjob.holds if hold.kind in PAYEES}
    return payees | {hold.intake.payer for hold in backjob.holds}


def split_refund(
    holds: Collection[ModelHold], named: Collection[ModelHold], amount_minor: int | None
) -> list[int]:
    """Return the refund of each hold: nothing for one that is not named, or for a kept fee."""
    held = [hold.held_minor if hold in named and not hold.is_kept else 0 for hold in holds]
    if not any(held):
        raise RuleRefused("the whole amount is kept")
    if amount_minor is None:
        return held
    if amount_minor > sum(held):
        raise InsufficientFunds("more than is held")
    return largest_remainder(amount_minor, held)


def window_is_open(hold: ModelHold, now: datetime) -> bool:
    """Return True if a backjob may still be requested for a hold's earning: while a payee's own
    share waits.
    """
    return any(
        share.kind is ShareKind.PAYEE and share.settled is None and now < share.release_date
        for share in hold.earning.holds
    )
