"""The rules of adding an earning, and of dividing it into shares."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Final

from buffer_pipeline.errors import InvalidInput, JobConflict, ReferenceConflict
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.rules import STANDARD
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.model.amounts import largest_remainder, minor
from buffer_pipeline_tests.support.model.backjobs import BackjobModel, window_is_open
from buffer_pipeline_tests.support.model.books import ESCROW
from buffer_pipeline_tests.support.model.records import Intake, Line, ModelEarning, ModelHold
from buffer_pipeline_tests.support.model.terms import ModelRule, divide_by_rule

BUFFER: Final = timedelta(days=7)
MISDATED: Final = "matures before it is held"


@dataclass(frozen=True)
class Part:
    """A hold for one owner. `dated` is True if the caller gave its date."""

    kind: ShareKind
    owner: str
    amount_minor: int
    release_date: datetime
    dated: bool


class EarningModel(BackjobModel):
    """The books with added earnings."""

    def add(
        self,
        intake: Intake,
        *,
        now: datetime,
        hold_ids: list[int],
        freeze_ids: Mapping[int, int],
        owners_freeze_ids: Mapping[int, int],
    ) -> ModelEarning:
        """Add an earning, or return the one that its reference identifies.

        `hold_ids` are those of the books, the payee's first. `freeze_ids` are, by hold, the freezes of the
        open backjob on
        its job, and `owners_freeze_ids` those of frozen owners.
        """
        if intake.payer == intake.payee:
            raise InvalidInput("the payee is the payer")
        amount_minor = minor(intake.amount, intake.currency)
        held_at = now if intake.held_at is None else intake.held_at
        parts = _divide(intake, amount_minor, held_at)
        standing = self.earnings.get(intake.reference)
        if standing is not None:
            if not _repeats(intake, amount_minor, parts, standing):
                raise ReferenceConflict("already used for another earning")
            return standing
        rule = self.rule_book.of_earning(intake.rule, intake.payee, intake.currency)
        if rule is not None:
            parts = _divide(intake, amount_minor, held_at, rule)
        dates = [_release_date(intake, held_at, rule), *(part.release_date for part in parts)]
        if min(dates) < held_at:
            raise InvalidInput(MISDATED)
        if self.jobs.setdefault(intake.job, intake.payer) != intake.payer:
            raise JobConflict("job of another payer")

        earning = self.earnings[intake.reference] = ModelEarning(amount_minor=amount_minor, rule=rule)
        self._wallet(intake.payer, intake.currency)
        for hold_id, part in zip(hold_ids, parts, strict=True):
            self._hold(hold_id, intake, earning, part, held_at, now)
        backjob = self.open_backjob(intake.job)
        if backjob is not None and window_is_open(earning.first, now):
            for hold in earning.holds:
                if now < hold.release_date:
                    freeze_id = freeze_ids[hold.hold_id]
                    self._freeze(hold, freeze_id, FreezeKind.BACKJOB, now=now, backjob_id=backjob.backjob_id)
                    backjob.holds.append(hold)
        for hold in earning.holds:
            owner_freeze = self.frozen_owner(hold.owner)
            if owner_freeze is not None:
                self._freeze(
                    hold,
                    owners_freeze_ids[hold.hold_id],
                    owner_freeze.kind,
                    now=now,
                    owner_freeze_id=owner_freeze.owner_freeze_id,
                )
        return earning

    def _hold(
        self,
        hold_id: int,
        intake: Intake,
        earning: ModelEarning,
        part: Part,
        held_at: datetime,
        now: datetime,
    ) -> None:
        hold = ModelHold(
            hold_id=hold_id,
            intake=intake,
            kind=part.kind,
            owner=part.owner,
            earning=earning,
            amount_minor=part.amount_minor,
            held_at=held_at,
            original_release_date=part.release_date,
            release_date=part.release_date,
            held_minor=part.amount_minor,
        )
        earning.holds.append(hold)
        self.holds[hold_id] = hold
        self._wallet(hold.owner, intake.currency).pending_minor += hold.amount_minor
        self.lines.append(
            Line(
                "PENDING_EARNING",
                ESCROW,
                ("PENDING_EARNINGS", hold.owner),
                intake.currency,
                hold.amount_minor,
                now,
                hold_id=hold_id,
            )
        )
        if self._is_notified(hold):
            self._notify(
                "PAYMENT_PENDING", hold.owner, now, hold, hold.amount_minor, release_date=hold.release_date
            )


def _divide(
    intake: Intake, amount_minor: int, held_at: datetime, rule: ModelRule | None = None
) -> list[Part]:
    """Return the share of each owner, the payee first, without empty ones."""
    release_date = _release_date(intake, held_at, rule)
    if rule is not None and not intake.shares:
        divided = divide_by_rule(
            rule, amount_minor=amount_minor, currency=intake.currency, payee=intake.payee, payer=intake.payer
        )
        kept_until = held_at + timedelta(days=rule.terms.get("reserve_days", 0))
        return [
            Part(kind, owner, part_minor, kept_until if kind is ShareKind.RESERVE else release_date, False)
            for kind, owner, part_minor in divided
        ]
    if not intake.shares:
        dated = intake.release_date is not None
        return [Part(ShareKind.PAYEE, intake.payee, amount_minor, release_date, dated)]
    owners = [_owner(share, intake) for share in intake.shares]
    own = [
        share.kind is ShareKind.PAYEE and owner == intake.payee
        for share, owner in zip(intake.shares, owners, strict=True)
    ]
    if own.count(True) != 1:
        raise InvalidInput("not one share is the payee's")
    exact = [_exact(share, amount_minor, intake.currency) for share in intake.shares]
    rest = amount_minor - sum((given for given in exact if given is not None), Fraction(0))
    if exact.count(None) > 1 or rest < 0 or (rest and None not in exact):
        raise InvalidInput("the shares differ from the amount")
    rounded = largest_remainder(amount_minor, [rest if given is None else given for given in exact])
    if rounded[own.index(True)] == 0:
        raise InvalidInput("no share for the payee")
    parts: list[Part] = []
    for share, owner, part_minor in zip(intake.shares, owners, rounded, strict=True):
        date, dated = share.release_date or release_date, bool(share.release_date or intake.release_date)
        if share.days is not None:
            date, dated = held_at + timedelta(days=share.days), intake.held_at is not None
        parts.append(Part(share.kind, owner, part_minor, date, dated))
    first = parts.pop(own.index(True))
    return [first, *(part for part in parts if part.amount_minor)]


def _release_date(intake: Intake, held_at: datetime, rule: ModelRule | None) -> datetime:
    """Return the earning's release date: the given one, or that of the rule or the settings."""
    if intake.release_date is not None:
        return intake.release_date
    days = None if rule is None else rule.terms.get("days")
    return held_at + (BUFFER if days is None else timedelta(days=days))


def _owner(share: Share, intake: Intake) -> str:
    if share.owner is None and share.kind in (ShareKind.FEE, ShareKind.TAX):
        raise InvalidInput("a share without an owner")
    owner = share.owner or intake.payee
    if owner == intake.payer:
        raise InvalidInput("the payer's share")
    if share.kind is ShareKind.RESERVE and owner != intake.payee:
        raise InvalidInput("another's reserve")
    return owner


def _exact(share: Share, amount_minor: int, currency: str) -> Fraction | None:
    """Return a share's exact minor units, if it has any."""
    if share.amount is not None:
        return Fraction(minor(str(share.amount), currency))
    if share.percent is not None:
        return Fraction(Decimal(share.percent)) / 100 * amount_minor
    return None


def _repeats(intake: Intake, amount_minor: int, parts: list[Part], standing: ModelEarning) -> bool:
    """Return True if an earning repeats the first one with its reference. Dates and shares are compared only
    if given.
    """
    first = standing.first
    if intake.rule not in (None, STANDARD if standing.rule is None else standing.rule.name):
        return False
    same = (intake.job, intake.payee, intake.payer, intake.currency, intake.title, amount_minor) == (
        first.intake.job,
        first.intake.payee,
        first.intake.payer,
        first.intake.currency,
        first.intake.title,
        standing.amount_minor,
    )
    if not same or intake.held_at not in (None, first.held_at):
        return False
    if not intake.shares:
        parts = parts[:1]
        return not parts[0].dated or parts[0].release_date == first.original_release_date
    return len(parts) == len(standing.holds) and all(
        (part.kind, part.owner, part.amount_minor) == (hold.kind, hold.owner, hold.amount_minor)
        and (not part.dated or part.release_date == hold.original_release_date)
        for part, hold in zip(parts, standing.holds, strict=True)
    )
