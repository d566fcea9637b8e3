"""An earning on its way into the buffer: as the platform states it, checked, and with its dates."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from buffer_pipeline.currencies import coming_in
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.hold_metadata import Metadata, metadata_text
from buffer_pipeline.inputs import LATEST, TITLE_LENGTH_MAX, outside_the_years, require_text, require_time
from buffer_pipeline.money import Places, parse_amount
from buffer_pipeline.rules import HoldRule, shares_by_rule
from buffer_pipeline.shares import PlannedShare, Share, ShareKind, misdated, plan_shares, share_date


@dataclass(frozen=True, kw_only=True)
class Earning:
    """What a payee earned on a job, as the platform states it.

    `reference` is the idempotency key. Without `held_at` the hold starts at `now`. `rule` names the hold rule
    that applies; without it the payee's rule applies, or `standard`. Without `release_date` the hold lasts
    the rule's days. Without `shares` the rule divides it; one PAYEE share says that all of it is the
    payee's. `metadata` is a flat JSON object of the platform's own: at most 20 keys of 40 characters, a text
    of at most 500. It is returned and never interpreted.
    """

    reference: str
    job: str
    payee: str
    payer: str
    amount: Decimal | int | str
    currency: str
    title: str = ""
    held_at: datetime | None = None
    release_date: datetime | None = None
    shares: Sequence[Share] = ()
    rule: str | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class CheckedEarning:
    """An earning whose values are checked, except for what depends on `now` and on its rule."""

    earning: Earning
    amount_minor: int
    places: int
    held_at: datetime | None
    release_date: datetime | None
    metadata: str | None
    """As JSON text; None if there is none."""
    shares: tuple[PlannedShare, ...]


@dataclass(frozen=True, slots=True)
class DatedShare:
    """A share of an earning with its release date."""

    kind: ShareKind
    owner: str
    amount_minor: int
    release_date: datetime
    date_is_given: bool
    """Whether it was given, or depends on the clock."""


@dataclass(slots=True)
class DatedEarning:
    """A checked earning with both of its dates, in their order, by the terms of a rule.

    `shares` are its shares, the payee's first; there are none if all of it is the payee's. `release_date` is
    that of the payee's share, and `date_is_given` says whether it was given or depends on the clock and the
    rule. Without `rule` it has the settings' defaults.
    """

    checked: CheckedEarning
    held_at: datetime
    release_date: datetime
    date_is_given: bool
    shares: tuple[DatedShare, ...] = ()
    rule: HoldRule | None = None
    refusal: InvalidInput | None = None
    """Why it cannot be added, if it is new."""

    @property
    def earning(self) -> Earning:
        """The earning as the platform states it."""
        return self.checked.earning

    @property
    def amount_minor(self) -> int:
        """The amount of the whole earning."""
        return self.checked.amount_minor

    @property
    def rule_id(self) -> int | None:
        """The version of the rule; None for the settings' defaults."""
        return None if self.rule is None else self.rule.rule_id

    @property
    def payee_minor(self) -> int:
        """What the payee's own share holds."""
        return self.shares[0].amount_minor if self.shares else self.amount_minor

    @property
    def window_ends(self) -> datetime:
        """When a backjob can no longer be requested for it: the last release date of a payee's own share."""
        return max(
            (share.release_date for share in self.shares if share.kind is ShareKind.PAYEE),
            default=self.release_date,
        )

    @property
    def credits(self) -> list[tuple[str, int]]:
        """Each owner that gets a share, with its minor units."""
        if not self.shares:
            return [(self.earning.payee, self.amount_minor)]
        return [(share.owner, share.amount_minor) for share in self.shares]


def check_earning(earning: Earning, *, places: Places) -> CheckedEarning:
    """Check an earning. `add_many_pending_earnings` then checks only its dates.

    `places` are those of the books; for a currency that the books do not have, ISO 4217 decides. An
    importer can call it for the next earnings while the database adds the last ones.

    Raises:
        InvalidInput: a value that can never be accepted; the message names it.
    """
    require_text("reference", earning.reference)
    require_text("job", earning.job)
    require_text("payee", earning.payee)
    require_text("payer", earning.payer)
    require_text("title", earning.title, length_max=TITLE_LENGTH_MAX, optional=True)
    if earning.rule is not None:
        require_text("rule", earning.rule)
    if earning.payer == earning.payee:
        # The payer may release early, and a payee must not be able to do so.
        raise InvalidInput(f"payer {earning.payer!r}: is the payee too")
    places_of_currency = coming_in(places, earning.currency)
    amount_minor = parse_amount(earning.amount, earning.currency, places_of_currency)
    return CheckedEarning(
        earning,
        amount_minor,
        places_of_currency,
        earning.held_at and require_time("held_at", earning.held_at),
        earning.release_date and require_time("release_date", earning.release_date),
        metadata_text(earning.metadata),
        plan_shares(
            earning.shares,
            payee=earning.payee,
            payer=earning.payer,
            amount_minor=amount_minor,
            currency=earning.currency,
            places=places_of_currency,
        )
        if earning.shares
        else (),
    )


def checked_by_the_books(earning: Earning | CheckedEarning, known: Places) -> CheckedEarning:
    """Return the checked earning. Check again if the books have other places than were used."""
    if isinstance(earning, Earning):
        return check_earning(earning, places=known)
    currency = earning.earning.currency
    return (
        earning
        if earning.places == coming_in(known, currency)
        else check_earning(earning.earning, places=known)
    )


def with_terms(
    checked: CheckedEarning, *, now: datetime, buffer: timedelta, rule: HoldRule | None = None
) -> DatedEarning:
    """Return the earning with the dates and shares that it was given, or else those of the rule.

    `buffer` is how long an earning is held whose rule has no days. A new earning whose dates are not in order
    has a `refusal`; a replay of an older one is compared all the same.

    Raises:
        RuleRefused: the rule leaves nothing for the payee, or the payer owns its fee or tax.
    """
    held_at = checked.held_at or now
    release_date = checked.release_date
    planned = checked.shares
    if rule is not None:
        earning = checked.earning
        planned = planned or shares_by_rule(
            rule, amount_minor=checked.amount_minor, payee=earning.payee, payer=earning.payer
        )
        if rule.days is not None:
            buffer = timedelta(days=rule.days)
    if release_date is None:
        release_date = held_at + buffer
    refusal = _misdated(held_at, release_date)
    if not planned:
        date_is_given = checked.release_date is not None
        return DatedEarning(checked, held_at, release_date, date_is_given, (), rule, refusal)
    shares = []
    for share in planned:
        date = share_date(share, held_at=held_at, release_date=release_date)
        refusal = refusal or misdated(share, held_at=held_at, release_date=date)
        shares.append(
            DatedShare(share.kind, share.owner, share.amount_minor, date, _is_given(share, checked))
        )
    return DatedEarning(
        checked,
        held_at,
        shares[0].release_date,
        shares[0].date_is_given,
        tuple(shares) if len(shares) > 1 else (),
        rule,
        refusal,
    )


def _is_given(share: PlannedShare, checked: CheckedEarning) -> bool:
    if share.days is not None:
        return checked.held_at is not None
    return share.release_date is not None or checked.release_date is not None


def _misdated(held_at: datetime, release_date: datetime) -> InvalidInput | None:
    if release_date >= LATEST:
        return outside_the_years("release_date", release_date)
    if held_at <= release_date:
        return None
    return InvalidInput(f"release_date {release_date.isoformat()}: before held_at {held_at.isoformat()}")
