"""Money enters the buffer: a worker's earning is held until its release date."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, cast

import psycopg
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.currencies import Places, bring_in, coming_in, places_of
from buffer_pipeline.database import AnyConnection, array_text, fetch, is_beyond_a_bigint, savepoint
from buffer_pipeline.errors import (
    BooksOutOfBalance,
    InvalidInput,
    JobConflict,
    ReferenceConflict,
    Refused,
)
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import LATEST, TITLE_LENGTH_MAX, outside_the_years, require_text, require_time
from buffer_pipeline.money import WALLET_MINOR_MAX, format_amount, parse_amount, wallet_full
from buffer_pipeline.policy import Policy


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
    places: int
    held_at: datetime | None
    release_date: datetime | None


@dataclass(slots=True)
class _Incoming:
    earning: Earning
    amount_minor: int
    places: int
    held_at: datetime
    release_date: datetime


_ATTEMPTS_MAX: Final = 3
"""Of a call that has more than some wallet takes: one finds out, and others may take its room meanwhile."""


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

    `amount` is in the currency's major unit. While a backjob is open on the job, the hold comes back
    FROZEN, unless its release date has passed. Safe to run again: the same reference with the
    same content returns the first hold and writes nothing. Dates are compared only where
    they are given, since the default follows the clock.

    Raises:
        InvalidInput: a value that can never be held; the message names it.
        ReferenceConflict: the reference stands for another earning.
        JobConflict: the job belongs to another payer.
        WalletFull: more than the payee's wallet can hold.
        Refused: another transaction added the currency meanwhile, with other places; roll back.
        BooksOutOfBalance: the wallets' credits differ from what was added; roll back.
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
    buffer = (policy or Policy()).buffer
    try:
        # By ISO 4217's list, which saves looking for what the books have: the statement compares the two.
        item = _dated(check_earning(earning, places={}), now=now, buffer=buffer)
    except InvalidInput:
        item = _dated(check_earning(earning, places=places_of(connection)), now=now, buffer=buffer)
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
        places=item.places,
        held_at=item.held_at,
        release_date=item.release_date,
        now=now,
    )
    if rows:
        return _added(item, rows[0]["hold_id"])
    # The reference exists, it is an owner's first earning, there is no room for it, its job has another payer
    # or an open backjob, or the list is not the books'.
    known = places_of(connection)
    item = _dated(check_earning(earning, places=known), now=now, buffer=buffer)
    outcome = _add_incoming(connection, [item], known=known, now=now, notify=True)[0]
    if isinstance(outcome, Refused):
        raise outcome
    return outcome


def add_many_pending_earnings(
    connection: AnyConnection,
    earnings: Iterable[Earning | CheckedEarning],
    *,
    now: datetime,
    policy: Policy | None = None,
    notify: bool = True,
) -> list[AddedHold | Refused]:
    """Hold many earnings in a few statements. Outcomes are in the order of `earnings`.

    Each is what `add_pending_earnings` would return or raise. A refused earning adds no hold and does not
    keep the others out. `notify=False` is for holds that come over from another system, where the payee
    has been told already.

    Raises:
        Refused: another transaction added a currency meanwhile, with other places; roll back.
        BooksOutOfBalance: the wallets' credits differ from what was added; roll back.
    """
    now = require_time("now", now)
    buffer = (policy or Policy()).buffer
    known = places_of(connection)
    outcomes: dict[int, AddedHold | Refused] = {}
    incoming: dict[int, _Incoming] = {}
    # A generator is taken to its end before anything is written.
    for place, earning in enumerate(earnings):
        try:
            checked = _by_the_books(earning, known)
            incoming[place] = _dated(checked, now=now, buffer=buffer)
        except InvalidInput as refusal:
            outcomes[place] = refusal

    added = _add_incoming(connection, list(incoming.values()), known=known, now=now, notify=notify)
    outcomes.update(zip(incoming, added, strict=True))
    return [outcomes[place] for place in sorted(outcomes)]


def _add_incoming(
    connection: AnyConnection, incoming: list[_Incoming], *, known: Places, now: datetime, notify: bool
) -> list[AddedHold | Refused]:
    references = [item.earning.reference for item in incoming]
    standing = _find(connection, references)
    # Where a reference comes twice in `incoming`, the first is held and the second repeats it.
    fresh: dict[str, _Incoming] = {}
    for reference, item in zip(references, incoming, strict=True):
        if reference not in standing:
            fresh.setdefault(reference, item)
    added = _add(connection, list(fresh.values()), known=known, now=now, notify=notify)
    if len(added) < len(incoming):
        # A replay, twice the same reference in `incoming`, or somebody who committed first.
        standing = _find(connection, references)
    outcomes: list[AddedHold | Refused] = []
    for reference, item in zip(references, incoming, strict=True):
        # The first to name a new reference added it; whoever comes after repeats it.
        outcome = added.pop(reference, None)
        if outcome is None and reference in standing:
            outcome = _replay(item, standing[reference])
        # What repeats an earning that was refused is refused as well.
        outcomes.append(outcome or outcomes[references.index(reference)])
    return outcomes


def _added(item: _Incoming, hold_id: int, *, state: HoldState = HoldState.BUFFERED) -> AddedHold:
    return AddedHold(
        hold_id=hold_id,
        reference=item.earning.reference,
        state=state,
        release_date=item.release_date,
        replayed=False,
    )


def check_earning(earning: Earning, *, places: Places) -> CheckedEarning:
    """Return an earning that `add_many_pending_earnings` need not check again, but for its dates.

    `places` are those of the books; a currency that they don't have is taken as ISO 4217 lists it.
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
    places_of_currency = coming_in(places, earning.currency)
    return CheckedEarning(
        earning,
        parse_amount(earning.amount, earning.currency, places_of_currency),
        places_of_currency,
        earning.held_at and require_time("held_at", earning.held_at),
        earning.release_date and require_time("release_date", earning.release_date),
    )


def _by_the_books(earning: Earning | CheckedEarning, known: Places) -> CheckedEarning:
    """Return it checked; once more where the books have other places than it was checked by."""
    if isinstance(earning, Earning):
        return check_earning(earning, places=known)
    currency = earning.earning.currency
    return (
        earning
        if earning.places == coming_in(known, currency)
        else check_earning(earning.earning, places=known)
    )


def _dated(checked: CheckedEarning, *, now: datetime, buffer: timedelta) -> _Incoming:
    held_at = checked.held_at or now
    release_date = checked.release_date
    if release_date is None:
        release_date = held_at + buffer
    if not held_at <= release_date < LATEST:
        raise _misdated(held_at, release_date)
    return _Incoming(checked.earning, checked.amount_minor, checked.places, held_at, release_date)


def _misdated(held_at: datetime, release_date: datetime) -> InvalidInput:
    if release_date >= LATEST:
        return outside_the_years("release_date", release_date)
    return InvalidInput(f"release_date {release_date.isoformat()}: before held_at {held_at.isoformat()}")


def _find(connection: AnyConnection, references: list[str]) -> dict[str, dict[str, object]]:
    rows = fetch(connection, "find_holds", references=array_text(references))
    return {row["reference"]: dict(row) for row in rows}


def _add(
    connection: AnyConnection, incoming: list[_Incoming], *, known: Places, now: datetime, notify: bool
) -> dict[str, AddedHold | Refused]:
    """Return, by reference, what was added and what was refused; not what somebody committed first."""
    if not incoming:
        return {}
    enter_hour(connection, now=now)
    full: dict[str, AddedHold | Refused] = {}
    for attempts_left in reversed(range(_ATTEMPTS_MAX)):
        # What is refused for its size leaves no job, no currency and no wallet behind.
        fitting = incoming
        try:
            with savepoint(connection):
                jobs = _lock_jobs(connection, incoming)
                fitting, refused = _by_payer(incoming, jobs)
                # Only now: what is refused brings no currency in.
                bring_in(connection, {item.earning.currency: item.places for item in fitting}, known=known)
                return full | refused | _add_all(connection, fitting, jobs, now=now, notify=notify)
        except (DBAPIError, psycopg.Error) as error:
            if not is_beyond_a_bigint(error) or not attempts_left:
                raise
        # Read without a lock, which would come before those of the jobs. So another transaction may take or
        # make room before the next attempt, as it may have committed some of the references.
        standing = _find(connection, [item.earning.reference for item in incoming])
        full |= _find_full(connection, [item for item in fitting if item.earning.reference not in standing])
        incoming = [item for item in incoming if item.earning.reference not in full | standing]
    raise AssertionError  # The last attempt returns or raises.


@dataclass(frozen=True, slots=True)
class _Job:
    payer: str
    open_backjob_id: int | None = None


def _by_payer(
    incoming: list[_Incoming], jobs: dict[str, _Job]
) -> tuple[list[_Incoming], dict[str, AddedHold | Refused]]:
    """Return what is paid by its job's payer, and, by reference, the refusals of the rest."""
    fitting: list[_Incoming] = []
    refused: dict[str, AddedHold | Refused] = {}
    for item in incoming:
        job, payer = item.earning.job, item.earning.payer
        if jobs[job].payer == payer:
            fitting.append(item)
        else:
            refused[item.earning.reference] = JobConflict(
                f"job {job!r}: its payer is {jobs[job].payer!r}, not {payer!r}", job=job
            )
    return fitting, refused


def _lock_jobs(connection: AnyConnection, incoming: list[_Incoming]) -> dict[str, _Job]:
    """Make the jobs that are new, lock the others, and return how each of them is."""
    payers: dict[str, str] = {}
    for item in incoming:
        payers.setdefault(item.earning.job, item.earning.payer)
    found = fetch(
        connection, "lock_jobs", jobs=array_text(list(payers)), payers=array_text(list(payers.values()))
    )[0]
    return {
        job: _Job(payer, backjob_id)
        for job, payer, backjob_id in zip(
            found["jobs"] or (), found["payers"] or (), found["backjob_ids"] or (), strict=True
        )
    }


def _find_full(connection: AnyConnection, incoming: list[_Incoming]) -> dict[str, AddedHold | Refused]:
    """Return reference -> refusal of each earning that its payee's wallet has no room for, in their order."""
    payees = list({(item.earning.payee, item.earning.currency) for item in incoming})
    rows = fetch(
        connection,
        "read_room",
        owners=array_text([owner for owner, _ in payees]),
        currencies=array_text([currency for _, currency in payees]),
    )
    room_minor = dict.fromkeys(payees, WALLET_MINOR_MAX)
    room_minor.update({(row["owner"], row["currency"]): row["room_minor"] for row in rows})
    full: dict[str, AddedHold | Refused] = {}
    for item in incoming:
        earning = item.earning
        payee = (earning.payee, earning.currency)
        if item.amount_minor > room_minor[payee]:
            full[earning.reference] = wallet_full(
                earning.payee, item.amount_minor, earning.currency, item.places
            )
        else:
            room_minor[payee] -= item.amount_minor
    return full


def _add_all(
    connection: AnyConnection,
    incoming: list[_Incoming],
    jobs: dict[str, _Job],
    *,
    now: datetime,
    notify: bool,
) -> dict[str, AddedHold | Refused]:
    """Return, by reference, what was added."""
    if not incoming:
        return {}
    hold_ids = _insert(connection, incoming)
    if not hold_ids:
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
        hold_ids = _insert(connection, incoming)
    if not hold_ids:
        return {}
    added = {item.earning.reference: item for item in incoming if item.earning.reference in hold_ids}
    moved = fetch(
        connection, "buffer_holds", hold_ids=array_text(list(hold_ids.values())), now=now, notify=notify
    )[0]
    amount_minor = sum(item.amount_minor for item in added.values())
    if moved["buffered_minor"] != amount_minor:
        raise BooksOutOfBalance(
            f"{len(hold_ids)} holds of {amount_minor} minor units were added,"
            f" wallets were credited with {moved['buffered_minor']}; roll back"
        )
    # What comes to a job with an open backjob waits for the decision, unless its own window is closed.
    late = {
        reference: backjob_id
        for reference, item in added.items()
        if (backjob_id := jobs[item.earning.job].open_backjob_id) is not None and item.release_date > now
    }
    if late:
        fetch(
            connection,
            "cover_holds",
            hold_ids=array_text([hold_ids[reference] for reference in late]),
            backjob_ids=array_text(list(late.values())),
            now=now,
            notify=notify,
        )
    return {
        reference: _added(
            item, hold_ids[reference], state=HoldState.FROZEN if reference in late else HoldState.BUFFERED
        )
        for reference, item in added.items()
    }


def _insert(connection: AnyConnection, incoming: list[_Incoming]) -> dict[str, int]:
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
                f" {_show(name, standing[name], item)}, not {_show(name, value, item)}",
                reference=earning.reference,
                hold_id=cast(int, standing["hold_id"]),
                job=str(standing["job"]),
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


def _show(name: str, value: object, item: _Incoming) -> str:
    if name == "amount_minor":
        assert isinstance(value, int)
        # The currency was compared before it, and is the same.
        return f"amount {format_amount(value, item.places)} {item.earning.currency}"
    if isinstance(value, datetime):
        return f"{name.removeprefix('original_')} {value.isoformat()}"
    return f"{name} {value!r}"
