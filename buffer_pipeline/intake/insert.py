"""The statements that add holds: one earning in one or two statements, or many in a few."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from buffer_pipeline.database import AnyConnection, Row, array_text, fetch
from buffer_pipeline.errors import BooksOutOfBalance
from buffer_pipeline.hold import HoldState
from buffer_pipeline.intake.earning import DatedEarning
from buffer_pipeline.intake.replay import AddedHold, AddedShare


@dataclass(frozen=True, slots=True)
class LockedJob:
    """A job that this transaction has locked or made."""

    payer: str
    open_backjob_id: int | None = None


def lock_jobs(connection: AnyConnection, incoming: list[DatedEarning]) -> dict[str, LockedJob]:
    """Insert the jobs that are new, lock the others, and return the payer and open backjob of each."""
    payers: dict[str, str] = {}
    for item in incoming:
        payers.setdefault(item.earning.job, item.earning.payer)
    found = fetch(
        connection,
        "intake/lock_jobs",
        jobs=array_text(list(payers)),
        payers=array_text(list(payers.values())),
    )[0]
    return {
        job: LockedJob(payer, backjob_id)
        for job, payer, backjob_id in zip(
            found["jobs"] or (), found["payers"] or (), found["backjob_ids"] or (), strict=True
        )
    }


def add_alone(connection: AnyConnection, item: DatedEarning, *, now: datetime) -> AddedHold | None:
    """Add an earning without shares; return None if it cannot be added in one statement."""
    earning = item.earning
    rows = fetch(
        connection,
        "intake/add_hold",
        reference=earning.reference,
        job=earning.job,
        title=earning.title,
        payee=earning.payee,
        payer=earning.payer,
        currency=earning.currency,
        amount_minor=item.amount_minor,
        places=item.checked.places,
        held_at=item.held_at,
        release_date=item.release_date,
        rule_id=item.rule_id,
        has_rule=item.rule is not None,
        metadata=item.checked.metadata,
        now=now,
    )
    if not rows:
        return None
    hold_ids = [rows[0]["hold_id"]]
    if rows[0]["owner_freeze_id"] is None:
        return as_added(item, hold_ids)
    return as_added(item, hold_ids, frozen=_cover_holds_of_owners(connection, hold_ids, now=now, notify=True))


def add_with_shares(connection: AnyConnection, item: DatedEarning, *, now: datetime) -> AddedHold | None:
    """Add an earning with shares; return None if it cannot be added in two statements."""
    earning = item.earning
    hold_ids: list[int] | None = fetch(
        connection,
        "intake/add_earning",
        reference=earning.reference,
        job=earning.job,
        title=earning.title,
        payee=earning.payee,
        payer=earning.payer,
        currency=earning.currency,
        earning_minor=item.amount_minor,
        places=item.checked.places,
        held_at=item.held_at,
        rule_id=item.rule_id,
        has_rule=item.rule is not None,
        metadata=item.checked.metadata,
        now=now,
        kinds=array_text([share.kind for share in item.shares]),
        owners=array_text([share.owner for share in item.shares]),
        amounts_minor=array_text([share.amount_minor for share in item.shares]),
        release_dates=array_text([share.release_date for share in item.shares]),
    )[0]["hold_ids"]
    if not hold_ids:
        return None
    frozen = _buffer(connection, hold_ids, amount_minor=item.amount_minor, now=now, notify=True)
    return as_added(item, hold_ids, frozen=frozen)


def add_all(
    connection: AnyConnection,
    incoming: list[DatedEarning],
    jobs: dict[str, LockedJob],
    *,
    now: datetime,
    notify: bool,
) -> dict[str, AddedHold]:
    """Return reference -> hold of what was added."""
    if not incoming:
        return {}
    have_shares = any(item.shares for item in incoming)
    if have_shares:
        _ensure_wallets(connection, incoming)
    hold_ids = _insert(connection, incoming, have_shares=have_shares)
    if not hold_ids and not have_shares:
        # Some owner has no wallet yet, or another transaction has committed all of the references.
        _ensure_wallets(connection, incoming)
        hold_ids = _insert(connection, incoming, have_shares=False)
    if not hold_ids:
        return {}
    added = [item for item in incoming if item.earning.reference in hold_ids]
    holds = {item.earning.reference: [hold_ids[item.earning.reference]] for item in added}
    if have_shares:
        _add_shares(connection, [item for item in added if item.shares], holds, first_ids=hold_ids.values())
    # Backjobs first: an owner's freeze also covers what is frozen already.
    all_ids = [hold_id for ids in holds.values() for hold_id in ids]
    moved = _move_money(connection, all_ids, sum(item.amount_minor for item in added), now=now, notify=notify)
    frozen = set(_cover_late(connection, added, holds, jobs, now=now, notify=notify))
    if moved["has_frozen_owner"]:
        frozen |= _cover_holds_of_owners(connection, all_ids, now=now, notify=notify)
    return {
        item.earning.reference: as_added(item, holds[item.earning.reference], frozen=frozen) for item in added
    }


def _ensure_wallets(connection: AnyConnection, incoming: list[DatedEarning]) -> None:
    owners = {
        (owner, item.earning.currency)
        for item in incoming
        for owner in (item.earning.payer, *(owner for owner, _ in item.credits))
    }
    fetch(
        connection,
        "wallet/ensure_wallets",
        owners=array_text([owner for owner, _ in owners]),
        currencies=array_text([currency for _, currency in owners]),
    )


def _add_shares(
    connection: AnyConnection,
    added: list[DatedEarning],
    holds: dict[str, list[int]],
    *,
    first_ids: Iterable[int],
) -> None:
    """Add the other shares of earnings whose first shares are in `holds`, and append their ids there."""
    others = [(item, share) for item in added for share in item.shares[1:]]
    hold_ids = fetch(
        connection,
        "intake/add_shares",
        first_ids=array_text([holds[item.earning.reference][0] for item, _ in others]),
        kinds=array_text([share.kind for _, share in others]),
        owners=array_text([share.owner for _, share in others]),
        amounts_minor=array_text([share.amount_minor for _, share in others]),
        release_dates=array_text([share.release_date for _, share in others]),
        all_first_ids=array_text(list(first_ids)),
    )[0]["hold_ids"]
    for (item, _), hold_id in zip(others, hold_ids or (), strict=True):
        holds[item.earning.reference].append(hold_id)


def _buffer(
    connection: AnyConnection, hold_ids: list[int], *, amount_minor: int, now: datetime, notify: bool
) -> set[int]:
    """Move the money of holds that were just added into the buffer. Return those that their owner's freeze
    covers.
    """
    moved = _move_money(connection, hold_ids, amount_minor, now=now, notify=notify)
    if not moved["has_frozen_owner"]:
        return set()
    return _cover_holds_of_owners(connection, hold_ids, now=now, notify=notify)


def _move_money(
    connection: AnyConnection, hold_ids: Sequence[int], amount_minor: int, *, now: datetime, notify: bool
) -> Row:
    moved = fetch(connection, "intake/buffer_holds", hold_ids=array_text(hold_ids), now=now, notify=notify)[0]
    if moved["buffered_minor"] != amount_minor:
        raise BooksOutOfBalance(
            f"{len(hold_ids)} holds of {amount_minor} minor units were added,"
            f" wallets were credited with {moved['buffered_minor']}; roll back"
        )
    return moved


def _cover_holds_of_owners(
    connection: AnyConnection, hold_ids: Sequence[int], *, now: datetime, notify: bool
) -> set[int]:
    """Freeze those of the added holds whose payee is frozen, and return their ids."""
    covered = fetch(
        connection, "intake/cover_holds_of_owners", hold_ids=array_text(hold_ids), now=now, notify=notify
    )[0]
    return set(covered["hold_ids"] or ())


def _cover_late(
    connection: AnyConnection,
    added: list[DatedEarning],
    holds: dict[str, list[int]],
    jobs: dict[str, LockedJob],
    *,
    now: datetime,
    notify: bool,
) -> dict[int, int]:
    """Freeze the holds on a job with an open backjob until its decision, and return hold -> backjob.

    An earning whose own window is closed is left out, and so is a share that is due.
    """
    late = {
        hold_id: backjob_id
        for item in added
        if (backjob_id := jobs[item.earning.job].open_backjob_id) is not None and item.window_ends > now
        for hold_id, release_date in zip(
            holds[item.earning.reference],
            [share.release_date for share in item.shares] or [item.release_date],
            strict=True,
        )
        if release_date > now
    }
    if late:
        fetch(
            connection,
            "intake/cover_holds",
            hold_ids=array_text(list(late)),
            backjob_ids=array_text(list(late.values())),
            now=now,
            notify=notify,
        )
    return late


def _insert(connection: AnyConnection, incoming: list[DatedEarning], *, have_shares: bool) -> dict[str, int]:
    """Return reference -> hold_id of what was added, the payees' own shares. Nothing is added if a payee or a
    payer has no wallet yet.
    """
    earnings = [item.earning for item in incoming]
    added = fetch(
        connection,
        "intake/add_holds",
        references=array_text([earning.reference for earning in earnings]),
        jobs=array_text([earning.job for earning in earnings]),
        titles=array_text([earning.title for earning in earnings]),
        payees=array_text([earning.payee for earning in earnings]),
        payers=array_text([earning.payer for earning in earnings]),
        currencies=array_text([earning.currency for earning in earnings]),
        amounts_minor=array_text([item.payee_minor for item in incoming]),
        earnings_minor=array_text([item.amount_minor for item in incoming]),
        have_shares=have_shares,
        held_ats=array_text([item.held_at for item in incoming]),
        release_dates=array_text([item.release_date for item in incoming]),
        # 0 and "" mean NULL, which `array_text` does not write.
        rule_ids=array_text([item.rule_id or 0 for item in incoming]),
        metadata=array_text([item.checked.metadata or "" for item in incoming]),
    )[0]
    return dict(zip(added["references"] or (), added["hold_ids"] or (), strict=True))


def as_added(item: DatedEarning, hold_ids: Sequence[int], *, frozen: Collection[int] = ()) -> AddedHold:
    """Return an earning as it was added: by its first share."""
    return AddedHold(
        hold_id=hold_ids[0],
        reference=item.earning.reference,
        state=HoldState.FROZEN if hold_ids[0] in frozen else HoldState.BUFFERED,
        release_date=item.release_date,
        replayed=False,
        shares=tuple(
            AddedShare(
                hold_id=hold_id,
                kind=share.kind,
                owner=share.owner,
                amount_minor=share.amount_minor,
                release_date=share.release_date,
            )
            for hold_id, share in zip(hold_ids, item.shares, strict=False)
        ),
    )
