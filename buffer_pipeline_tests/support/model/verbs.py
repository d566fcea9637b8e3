"""The rules of the other verbs: releases, refunds by an admin, freezes, wallets."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from buffer_pipeline.errors import (
    BackjobRefused,
    DateRefused,
    FreezeRefused,
    InsufficientFunds,
    InvalidInput,
    NotAllowed,
    NotFound,
    ReferenceConflict,
)
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.model.amounts import minor
from buffer_pipeline_tests.support.model.backjobs import PAYEES, split_refund
from buffer_pipeline_tests.support.model.books import EXTERNAL, state_refused
from buffer_pipeline_tests.support.model.payouts import PayoutModel
from buffer_pipeline_tests.support.model.records import (
    Line,
    ModelFreeze,
    ModelHold,
    ModelOwnerFreeze,
    ModelRefund,
)

MOVED_AT_MOST: Final = timedelta(days=90)


class Model(PayoutModel):
    """The books. Each verb does all of its work, or raises and does nothing."""

    # ---- releasing

    def release_due(
        self,
        *,
        by: datetime,
        now: datetime,
        limit: int | None,
        released: Mapping[int, int],
    ) -> None:
        """Release what is due. The rules determine the hours; within an hour the books choose.

        `released` are the ids of the chosen holds, each with its batch.
        """
        due = self.due(by)
        chosen = [hold for hold in due if hold.hold_id in released]
        assert len(chosen) == len(released), "released what was not due"
        assert len(chosen) == (len(due) if limit is None else min(limit, len(due))), "released too few"
        left = [hold for hold in due if hold.hold_id not in released]
        if chosen and left:
            latest = max(_hour(hold.release_date) for hold in chosen)
            assert latest <= min(_hour(hold.release_date) for hold in left), "an older hour waits"
        for batch_id in sorted(set(released.values())):
            batch = [hold for hold in chosen if released[hold.hold_id] == batch_id]
            self._release_together(batch, now=now)

    # ---- refunds by an admin

    def refund_hold(
        self, *, hold_id: int, by: str, reason: str, reference: str, now: datetime, amount: str | None
    ) -> ModelRefund:
        """Refund a frozen hold, or the unsettled shares of an earning, all of them frozen, and close their
        freezes; or refund a part in proportion, and leave holds with a rest frozen.
        """
        named = self.find_hold(hold_id)
        if named is None:
            raise NotFound("no such hold")
        amount_minor = None if amount is None else minor(amount, named.intake.currency)
        if reference in self.refunds:
            known = self.refunds[reference]
            # Without an amount, the caller meant everything that was left.
            same = known.left_minor == 0 if amount_minor is None else amount_minor == known.amount_minor
            if known.content != (hold_id, by, reason) or not same:
                raise ReferenceConflict("already used for another refund")
            return known
        if reference in self.movements:
            raise ReferenceConflict("already used for a movement")
        frozen = [hold for hold in _named_by(named) if hold.settled is None]
        if not frozen:
            raise state_refused(named)
        for hold in frozen:
            if hold.state is not HoldState.FROZEN:
                raise state_refused(hold)
        if any(one.is_open and one.kind is FreezeKind.BACKJOB for hold in frozen for one in hold.freezes):
            raise BackjobRefused("a backjob covers it")
        held_minor = sum(hold.held_minor for hold in frozen if not hold.is_kept)
        shares = split_refund(frozen, frozen, amount_minor)
        amount_minor = sum(shares)
        taken = [(hold, share) for hold, share in zip(frozen, shares, strict=True) if share]
        # Recipients are chosen before anything is settled.
        notified = [
            hold for hold, _ in taken if (hold.kind in PAYEES and hold is named) or self._is_notified(hold)
        ]
        for number, (hold, share) in enumerate(taken):
            self._refund(hold, share, now=now, reference=None if number else reference)
            if hold in notified:
                self._notify("PAYMENT_REFUNDED", hold.owner, now, hold, share)
            if hold.settled is not None:
                for freeze in hold.freezes:
                    freeze.is_open = False
        self._notify("PAYMENT_REFUNDED", named.intake.payer, now, named, amount_minor)
        self.refunds[reference] = ModelRefund(
            content=(hold_id, by, reason),
            hold_ids=tuple(hold.hold_id for hold, _ in taken),
            amount_minor=amount_minor,
            left_minor=held_minor - amount_minor,
        )
        return self.refunds[reference]

    def left_minor(self, hold_id: int) -> int:
        """Return what a hold still holds; for an earning's own hold, the sum of its shares."""
        return sum(hold.held_minor for hold in _named_by(self.holds[hold_id]))

    # ---- freezes

    def freeze_hold(
        self,
        *,
        hold_id: int,
        kind: FreezeKind,
        by: str,
        reason: str,
        now: datetime,
        reference: str | None,
        freeze_ids: Mapping[int, int],
    ) -> list[ModelFreeze]:
        """Put one more freeze on a hold, or on all unsettled shares of an earning; `freeze_ids`
        are by hold.
        """
        if kind is FreezeKind.BACKJOB:
            raise InvalidInput("a BACKJOB freeze without a backjob")
        content = (hold_id, kind, by, reason)
        known = self._known("freeze", reference, content)
        if known is not None:
            return self.freezes_with(known)
        named = self.find_hold(hold_id)
        if named is None:
            raise NotFound("no such hold")
        holds = _named_by(named)
        # The first freeze is that of a share of the payee, who reads its text.
        covered = sorted(
            (hold for hold in holds if hold.settled is None), key=lambda hold: hold.owner != holds[0].owner
        )
        if not covered:
            raise state_refused(named)
        first_id = freeze_ids[covered[0].hold_id]
        for hold in covered:
            self._freeze(
                hold,
                freeze_ids[hold.hold_id],
                kind,
                now=now,
                earning_id=hold_id if len(holds) > 1 else None,
                earning_freeze_id=None if hold is covered[0] else first_id,
            )
        self._keep("freeze", reference, content, first_id)
        return self.freezes_with(first_id)

    def freezes_with(self, freeze_id: int) -> list[ModelFreeze]:
        """Return a freeze, and those of the other shares that belong to it."""
        return [
            freeze
            for freeze in self.freezes.values()
            if freeze_id in (freeze.freeze_id, freeze.earning_freeze_id)
        ]

    def unfreeze_hold(
        self, *, freeze_id: int, by: str, reason: str, now: datetime, reference: str | None
    ) -> list[ModelFreeze]:
        """Close a freeze and those that belong to it. A hold without another freeze is buffered, on its own
        date.
        """
        content = (freeze_id, by, reason)
        known = self._known("closing", reference, content)
        if known is not None:
            return self.freezes_with(known)
        freeze = self.freezes.get(freeze_id)
        if freeze is None:
            raise NotFound("no such freeze")
        if freeze.kind is FreezeKind.BACKJOB:
            raise FreezeRefused("belongs to a backjob")
        if freeze.owner_freeze_id is not None:
            raise FreezeRefused("belongs to an owner's freeze")
        if freeze.earning_freeze_id is not None:
            raise FreezeRefused("belongs to an earning's freeze")
        standing = [one for one in self.freezes_with(freeze_id) if one.is_open]
        if not standing:
            raise FreezeRefused("already closed")
        for one in standing:
            one.is_open = False
            hold = self.holds[one.hold_id]
            if hold.state is HoldState.BUFFERED:
                self._notify_resumed(hold, now, None)
        self._keep("closing", reference, content, freeze_id)
        return self.freezes_with(freeze_id)

    def freeze_owner(
        self,
        *,
        owner: str,
        kind: FreezeKind,
        by: str,
        reason: str,
        now: datetime,
        reference: str | None,
        owner_freeze_id: int | None,
        freeze_ids: Mapping[int, int],
    ) -> ModelOwnerFreeze:
        """Freeze an owner's unsettled holds; `freeze_ids` are by hold."""
        if kind is FreezeKind.BACKJOB:
            raise InvalidInput("a BACKJOB freeze without a backjob")
        content = (owner, kind, by, reason)
        known = self._known("owner freeze", reference, content)
        if known is not None:
            return self.owner_freezes[known]
        if self.frozen_owner(owner) is not None:
            raise FreezeRefused("already frozen")
        assert owner_freeze_id is not None, "the books gave an id"
        holds = [hold for hold in self.unsettled() if hold.owner == owner]
        for hold in holds:
            self._freeze(hold, freeze_ids[hold.hold_id], kind, now=now, owner_freeze_id=owner_freeze_id)
        freeze = ModelOwnerFreeze(
            owner_freeze_id=owner_freeze_id,
            owner=owner,
            kind=kind,
            opened_at=now,
            holds_frozen=len(holds),
        )
        self.owner_freezes[owner_freeze_id] = freeze
        self._keep("owner freeze", reference, content, owner_freeze_id)
        return freeze

    def unfreeze_owner(
        self, *, owner: str, by: str, reason: str, now: datetime, reference: str | None
    ) -> ModelOwnerFreeze:
        """Close an owner's freeze. Holds without another freeze are buffered, on their own dates."""
        content = (owner, by, reason)
        known = self._known("owner closing", reference, content)
        if known is not None:
            return self.owner_freezes[known]
        freeze = self.frozen_owner(owner)
        if freeze is None:
            raise FreezeRefused("not frozen")
        freeze.holds_resumed = 0
        for hold in self.unsettled():
            for one in hold.freezes:
                if one.is_open and one.owner_freeze_id == freeze.owner_freeze_id:
                    one.is_open = False
                    if hold.state is HoldState.BUFFERED:
                        freeze.holds_resumed += 1
                        self._notify_resumed(hold, now, None)
        self._keep("owner closing", reference, content, freeze.owner_freeze_id)
        return freeze

    # ---- release dates

    def reschedule_hold(
        self,
        *,
        hold_id: int,
        to: datetime,
        by: str,
        reason: str,
        now: datetime,
        as_admin: bool,
        reference: str | None,
    ) -> list[ModelHold]:
        """Move a date: the payer to an earlier one, an admin also to a later one, up to the cap.

        An earning's own hold takes what waits of the earning and has its date along.
        """
        content = (hold_id, to, by, reason)
        known = self._known("move", reference, content)
        if known is not None:
            assert reference is not None
            return self.moves[reference]
        hold = self.find_hold(hold_id)
        if hold is None:
            raise NotFound("no such hold")
        if hold.settled is not None:
            raise state_refused(hold)
        if not as_admin and by != hold.intake.payer:
            raise NotAllowed("neither payer nor admin")
        if not as_admin and to > hold.release_date:
            raise NotAllowed("a payer cannot postpone")
        if to == hold.release_date:
            raise DateRefused("already its date")
        if to < now:
            raise DateRefused("before now")
        moved = [
            share
            for share in _named_by(hold)
            if share.settled is None and share.release_date == hold.release_date
        ]
        if hold.release_date < to and any(
            share.original_release_date + MOVED_AT_MOST < to for share in moved
        ):
            raise DateRefused("beyond the cap")
        if not as_admin and to < hold.held_at + timedelta(days=hold.terms.get("min_days", 0)):
            raise DateRefused("before the minimum days")
        for share in moved:
            share.release_date = to
            if (share is hold and share.kind is ShareKind.RESERVE) or self._is_notified(share):
                self._notify(
                    "PAYMENT_RESCHEDULED", share.owner, now, share, share.held_minor, release_date=to
                )
        self._keep("move", reference, content, hold_id)
        if reference is not None:
            self.moves[reference] = moved
        return moved

    # ---- wallets

    def move(
        self, type_: str, *, owner: str, amount: str, currency: str, reference: str, now: datetime
    ) -> int:
        """Deposit into a balance or withdraw from it; return the balance after it."""
        amount_minor = minor(amount, currency)
        content = (type_, owner, currency, amount_minor)
        if reference in self.refunds:
            raise ReferenceConflict("already used for a refund")
        if reference in self.movements:
            if self.movements[reference] != content:
                raise ReferenceConflict("already used for another movement")
            return self.wallets[owner, currency].balance_minor
        if type_ == "WITHDRAWAL":
            if (owner, currency) not in self.wallets:
                raise NotFound("no such wallet")
            if amount_minor > self.wallets[owner, currency].balance_minor:
                raise InsufficientFunds("more than the balance")
        wallet = self._wallet(owner, currency)
        outside, inside = EXTERNAL, ("BALANCE", owner)
        source, target = (outside, inside) if type_ == "DEPOSIT" else (inside, outside)
        wallet.balance_minor += amount_minor if type_ == "DEPOSIT" else -amount_minor
        self.movements[reference] = content
        self.lines.append(Line(type_, source, target, currency, amount_minor, now, reference=reference))
        return wallet.balance_minor


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _named_by(named: ModelHold) -> list[ModelHold]:
    """Return the holds that an id means: all shares of an earning by its own hold's id, otherwise
    that hold.
    """
    return named.earning.holds if named is named.earning.first else [named]
