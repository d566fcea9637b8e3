"""Money enters the buffer: a worker's earning is held until its release date."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from buffer_pipeline.database import AnyConnection, array_text, fetch
from buffer_pipeline.errors import InvalidInput, ReferenceConflict, Refused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import TITLE_LENGTH_MAX, require_text, require_time
from buffer_pipeline.money import format_amount, parse_amount
from buffer_pipeline.policy import Policy

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(3000, 1, 1, tzinfo=UTC)
"""Far from where adding a cooldown leaves the calendar."""


@dataclass(frozen=True, kw_only=True)
class Earning:
    """What a payee earned on a job, as the platform states it.

    `reference` is the idempotency key. Without `held_at` the hold starts at `now`, without
    `release_date` it lasts `buffer_days`.
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


@dataclass(frozen=True, kw_only=True)
class AddedHold:
    """The hold that a reference stands for; `replayed` when it stood before this call."""

    hold_id: int
    reference: str
    state: HoldState
    release_date: datetime
    replayed: bool


@dataclass(frozen=True, slots=True)
class CheckedEarning:
    """An earning that can be held, as far as that can be said before its time is known."""

    earning: Earning
    amount_minor: int
    held_at: datetime | None
    release_date: datetime | None


@dataclass(slots=True)
class _Incoming:
    earning: Earning
    amount_minor: int
    held_at: datetime
    release_date: datetime


def add_pending_earnings(
    connection: AnyConnection,
    *,
    reference: str,
    job: str,
    payee: str,
    payer: str,
    amount: Decimal | int | str,
    currency: str,
    now: datetime,
    title: str = "",
    held_at: datetime | None = None,
    release_date: datetime | None = None,
    policy: Policy | None = None,
) -> AddedHold:
    """Hold one earning in the caller's transaction and owe its payee a PAYMENT_PENDING.

    `amount` is in the currency's major unit. Safe to run again: the same reference with the
    same content returns the first hold and writes nothing. Dates are compared only where
    they are given, since the default follows the clock.

    Raises:
        InvalidInput: a value that can never be held; the message names it.
        ReferenceConflict: the reference stands for another earning.
    """
    earning = Earning(
        reference=reference,
        job=job,
        payee=payee,
        payer=payer,
        amount=amount,
        currency=currency,
        title=title,
        held_at=held_at,
        release_date=release_date,
    )
    now = require_time("now", now)
    item = _dated(check_earning(earning), now=now, buffer=(policy or Policy()).buffer)
    rows = fetch(
        connection,
        "add_hold",
        reference=reference,
        job=job,
        title=title,
        payee=payee,
        payer=payer,
        currency=currency,
        amount_minor=item.amount_minor,
        held_at=item.held_at,
        release_date=item.release_date,
        now=now,
    )
    if rows:
        return _added(item, rows[0]["hold_id"])
    # The reference stands already, or this is the first earning of an owner's.
    outcome = _add_incoming(connection, [item], now=now, notify=True)[0]
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


def add_many_pending_earnings(
    connection: AnyConnection,
    earnings: Sequence[Earning | CheckedEarning],
    *,
    now: datetime,
    policy: Policy | None = None,
    notify: bool = True,
) -> list[AddedHold | Refused]:
    """Hold many earnings in one statement; the outcome of each stands at its place.

    A refused earning writes nothing and does not keep the others out. `notify=False` is for
    holds that come over from another system, where the payee has been told already.
    """
    now = require_time("now", now)
    buffer = (policy or Policy()).buffer
    outcomes: dict[int, AddedHold | Refused] = {}
    incoming: dict[int, _Incoming] = {}
    for place, earning in enumerate(earnings):
        try:
            checked = earning if isinstance(earning, CheckedEarning) else check_earning(earning)
            incoming[place] = _dated(checked, now=now, buffer=buffer)
        except InvalidInput as refusal:
            outcomes[place] = refusal

    added = _add_incoming(connection, list(incoming.values()), now=now, notify=notify)
    outcomes.update(zip(incoming, added, strict=True))
    return [outcomes[place] for place in range(len(earnings))]


def _add_incoming(
    connection: AnyConnection, incoming: list[_Incoming], *, now: datetime, notify: bool
) -> list[AddedHold | Refused]:
    references = [item.earning.reference for item in incoming]
    standing = _find(connection, references)
    # Where a reference stands twice in `incoming`, the first is held and the second repeats it.
    fresh: dict[str, _Incoming] = {}
    for reference, item in zip(references, incoming, strict=True):
        if reference not in standing:
            fresh.setdefault(reference, item)
    added = _add(connection, list(fresh.values()), now=now, notify=notify)
    if len(added) < len(incoming):
        # A replay, twice the same reference in `incoming`, or somebody who committed first.
        standing = _find(connection, references)
    outcomes: list[AddedHold | Refused] = []
    for reference, item in zip(references, incoming, strict=True):
        # The first to name a new reference added it; whoever comes after repeats it.
        hold_id = added.pop(reference, None)
        outcomes.append(_replay(item, standing[reference]) if hold_id is None else _added(item, hold_id))
    return outcomes


def _added(item: _Incoming, hold_id: int) -> AddedHold:
    return AddedHold(
        hold_id=hold_id,
        reference=item.earning.reference,
        state=HoldState.BUFFERED,
        release_date=item.release_date,
        replayed=False,
    )


def check_earning(earning: Earning) -> CheckedEarning:
    """Return an earning that `add_many_pending_earnings` need not check again, but for its dates.

    Whoever reads many checks the next ones while the database holds the last.

    Raises:
        InvalidInput: a value that can never be held; the message names it.
    """
    require_text("reference", earning.reference)
    require_text("job", earning.job)
    require_text("payee", earning.payee)
    require_text("payer", earning.payer)
    require_text("title", earning.title, length_max=TITLE_LENGTH_MAX, optional=True)
    if earning.payer == earning.payee:
        # A payer may release early, which is not a payee's to decide.
        raise InvalidInput(f"payer {earning.payer!r}: is the payee too")
    return CheckedEarning(
        earning,
        parse_amount(earning.amount, earning.currency),
        earning.held_at and require_time("held_at", earning.held_at),
        earning.release_date and require_time("release_date", earning.release_date),
    )


def _dated(checked: CheckedEarning, *, now: datetime, buffer: timedelta) -> _Incoming:
    held_at = checked.held_at or now
    release_date = checked.release_date
    if release_date is None:
        try:
            release_date = held_at + buffer
        except OverflowError:
            raise InvalidInput(f"held_at {held_at.isoformat()}: too late to add a buffer to") from None
    if not EARLIEST <= held_at <= release_date < LATEST:
        raise _misdated(held_at, release_date)
    return _Incoming(checked.earning, checked.amount_minor, held_at, release_date)


def _misdated(held_at: datetime, release_date: datetime) -> InvalidInput:
    for name, moment in (("held_at", held_at), ("release_date", release_date)):
        if not EARLIEST <= moment < LATEST:
            return InvalidInput(
                f"{name} {moment.isoformat()}: lies outside the years {EARLIEST.year} to {LATEST.year - 1}"
            )
    return InvalidInput(f"release_date {release_date.isoformat()}: before held_at {held_at.isoformat()}")


def _find(connection: AnyConnection, references: list[str]) -> dict[str, dict[str, object]]:
    rows = fetch(connection, "find_holds", references=array_text(references))
    return {row["reference"]: dict(row) for row in rows}


def _add(
    connection: AnyConnection, incoming: list[_Incoming], *, now: datetime, notify: bool
) -> dict[str, int]:
    """Return reference -> hold_id of what was added."""
    if not incoming:
        return {}
    enter_hour(connection, now=now)
    added = _insert(connection, incoming, now=now, notify=notify)
    if not added:
        # It is the first earning of an owner's, or somebody has committed all of the references meanwhile.
        owners = {
            (owner, item.earning.currency)
            for item in incoming
            for owner in (item.earning.payee, item.earning.payer)
        }
        fetch(
            connection,
            "ensure_wallets",
            owners=array_text([owner for owner, _ in owners]),
            currencies=array_text([currency for _, currency in owners]),
        )
        added = _insert(connection, incoming, now=now, notify=notify)
    return added


def _insert(
    connection: AnyConnection, incoming: list[_Incoming], *, now: datetime, notify: bool
) -> dict[str, int]:
    """Return reference -> hold_id of what was added: nothing where an owner has no wallet yet."""
    earnings = [item.earning for item in incoming]
    added = fetch(
        connection,
        "add_holds",
        references=array_text([earning.reference for earning in earnings]),
        jobs=array_text([earning.job for earning in earnings]),
        titles=array_text([earning.title for earning in earnings]),
        payees=array_text([earning.payee for earning in earnings]),
        payers=array_text([earning.payer for earning in earnings]),
        currencies=array_text([earning.currency for earning in earnings]),
        amounts_minor=array_text([item.amount_minor for item in incoming]),
        held_ats=array_text([item.held_at for item in incoming]),
        release_dates=array_text([item.release_date for item in incoming]),
        now=now,
        notify=notify,
    )[0]
    return dict(zip(added["references"] or (), added["hold_ids"] or (), strict=True))


def _replay(item: _Incoming, standing: dict[str, object]) -> AddedHold | Refused:
    earning = item.earning
    content: dict[str, object] = {
        "job": earning.job,
        "payee": earning.payee,
        "payer": earning.payer,
        "currency": earning.currency,
        "amount_minor": item.amount_minor,
        "title": earning.title,
    }
    if earning.held_at is not None:
        content["held_at"] = item.held_at
    if earning.release_date is not None:
        content["original_release_date"] = item.release_date
    for name, value in content.items():
        if standing[name] != value:
            return ReferenceConflict(
                f"reference {earning.reference!r}: stands for hold {standing['hold_id']} with"
                f" {_show(name, standing[name], str(standing['currency']))},"
                f" not {_show(name, value, earning.currency)}"
            )
    hold_id, release_date = standing["hold_id"], standing["release_date"]
    assert isinstance(hold_id, int)
    assert isinstance(release_date, datetime)
    return AddedHold(
        hold_id=hold_id,
        reference=earning.reference,
        state=HoldState(str(standing["state"])),
        release_date=release_date,
        replayed=True,
    )


def _show(name: str, value: object, currency: str) -> str:
    if name == "amount_minor":
        assert isinstance(value, int)
        return f"amount {format_amount(value, currency)} {currency}"
    if isinstance(value, datetime):
        return f"{name.removeprefix('original_')} {value.isoformat()}"
    return f"{name} {value!r}"
