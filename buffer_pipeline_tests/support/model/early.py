"""The rules of early releases: of an earning, a share, a job, or a part of an earning or a share."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from buffer_pipeline.errors import (
    DateRefused,
    InsufficientFunds,
    InvalidInput,
    NotAllowed,
    NotFound,
    ReferenceConflict,
)
from buffer_pipeline.hold import HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.model.amounts import largest_remainder, minor
from buffer_pipeline_tests.support.model.backjobs import PAYEES
from buffer_pipeline_tests.support.model.books import state_refused
from buffer_pipeline_tests.support.model.earning import EarningModel
from buffer_pipeline_tests.support.model.records import Line, ModelHold, ModelRelease


class EarlyModel(EarningModel):
    """The books with early releases."""

    def release_early(
        self,
        *,
        by: str,
        reason: str,
        now: datetime,
        hold_id: int | None = None,
        job: str | None = None,
        amount: str | None = None,
        as_admin: bool = False,
        reference: str | None = None,
        min_days: int = 0,
    ) -> ModelRelease:
        """Release an earning, a share, a job's holds, or a part: all of it or nothing.

        A reserve stays unless it is named itself. `min_days` is a payer's minimum wait if the hold's rule has
        none.
        """
        if amount is not None and (hold_id is None or reference is None):
            raise InvalidInput("a part of a job, or without a reference")
        named = self.named(hold_id, job)
        if not named:
            raise NotFound("no such hold" if job is None else "no hold of this job")
        amount_minor = None if amount is None else minor(amount, named[0].intake.currency)
        if reference in self.early:
            content, done = self.early[reference]
            same = done.whole if amount_minor is None else sum(done.given.values()) == amount_minor
            if content != (hold_id, job, by, reason) or not same:
                raise ReferenceConflict("already used for another early release")
            return done
        if reference in self.clawbacks or reference in self.debt_keys:
            raise ReferenceConflict("already used for a claw-back or a debt")
        holds = self.takes_from(hold_id, named)
        _require_allowed(holds, by=by, as_admin=as_admin)
        if not as_admin and any(
            now < hold.held_at + minimum for hold in holds if (minimum := _minimum(hold, min_days))
        ):
            raise DateRefused("before the payer's minimum days")
        held_minor = sum(hold.held_minor for hold in holds)
        if amount_minor is not None and amount_minor > held_minor:
            raise InsufficientFunds("more than is held")
        given = {hold.hold_id: hold.held_minor for hold in holds}
        parts: set[int] = set()
        whole = amount_minor is None or amount_minor == held_minor
        if amount_minor is None or whole:
            self._release_together(holds, now=now)
        else:
            shares = largest_remainder(amount_minor, [hold.held_minor for hold in holds])
            given = {hold.hold_id: share for hold, share in zip(holds, shares, strict=True) if share}
            parts = self._give(holds, given, now=now)
        done = ModelRelease(given, frozenset(parts), whole)
        if reference is not None:
            self.early[reference] = (hold_id, job, by, reason), done
        return done

    def named(self, hold_id: int | None, job: str | None) -> list[ModelHold]:
        """Return the holds of the job, or the named hold; for an earning's own hold all its shares."""
        if job is not None:
            return self.holds_of(job)
        hold = None if hold_id is None else self.find_hold(hold_id)
        if hold is None:
            return []
        return list(hold.earning.holds) if hold is hold.earning.first else [hold]

    def takes_from(self, hold_id: int | None, named: list[ModelHold]) -> list[ModelHold]:
        """Return the named holds that are released: unsettled ones except reserves."""
        if named[0].hold_id != hold_id or named[0].kind is not ShareKind.RESERVE:
            named = [hold for hold in named if hold.kind is not ShareKind.RESERVE]
        if any(hold.state is HoldState.BUFFERED for hold in named):
            return [hold for hold in named if hold.settled is None]
        return named

    def _give(self, holds: Iterable[ModelHold], given: dict[int, int], *, now: datetime) -> set[int]:
        """Release a part of each hold; return the ids of those that still hold something."""
        parts = set()
        for hold in holds:
            share = given.get(hold.hold_id, 0)
            notified = hold.kind in PAYEES or hold.owner in self.wants_messages_of_shares
            if share and share == hold.held_minor:
                self._release(hold, now=now, notified=notified)
            elif share:
                parts.add(hold.hold_id)
                self._give_part(hold, share, now=now, notified=notified)
        self._recover_from_release(given, now=now)
        return parts

    def _give_part(self, hold: ModelHold, part_minor: int, *, now: datetime, notified: bool) -> None:
        wallet = self._wallet(hold.owner, hold.intake.currency)
        wallet.pending_minor -= part_minor
        wallet.balance_minor += part_minor
        hold.held_minor -= part_minor
        hold.released_minor += part_minor
        self.lines.append(
            Line(
                "EARNING_PART",
                ("PENDING_EARNINGS", hold.owner),
                ("BALANCE", hold.owner),
                hold.intake.currency,
                part_minor,
                now,
                hold_id=hold.hold_id,
                release_date=hold.release_date,
            )
        )
        if notified:
            self._notify(
                "PAYMENT_RELEASED",
                hold.owner,
                now,
                hold,
                part_minor,
                release_date=hold.release_date,
                left_minor=hold.held_minor,
            )


def _require_allowed(holds: Iterable[ModelHold], *, by: str, as_admin: bool) -> None:
    for hold in holds:
        if hold.state is not HoldState.BUFFERED:
            raise state_refused(hold)
        if not as_admin and hold.kind is ShareKind.RESERVE:
            raise NotAllowed("only an admin releases a reserve")
        if not as_admin and by != hold.intake.payer:
            raise NotAllowed("neither payer nor admin")


def _minimum(hold: ModelHold, min_days: int) -> timedelta:
    if hold.earning.rule is not None:
        min_days = hold.terms.get("min_days", min(min_days, hold.terms.get("days", min_days)))
    return timedelta(days=min_days)
