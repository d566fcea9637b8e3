"""Replays: the hold that a reference identifies, and whether an earning repeats its content."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from buffer_pipeline.database import AnyConnection, array_text, fetch
from buffer_pipeline.errors import ReferenceConflict, Refused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hold_metadata import Metadata, differing_key, read_metadata, shown_metadata
from buffer_pipeline.intake.earning import DatedEarning, DatedShare
from buffer_pipeline.money import format_amount
from buffer_pipeline.shares import ShareKind


@dataclass(frozen=True, kw_only=True)
class AddedShare:
    """The hold of one share of an earning, as it was added."""

    hold_id: int
    kind: ShareKind
    owner: str
    amount_minor: int
    release_date: datetime


@dataclass(frozen=True, kw_only=True)
class AddedHold:
    """The hold that a reference identifies. `replayed` is True if it existed before this call.

    If the earning has shares, the hold is the payee's own share, and `shares` has all of them, that one
    first.
    """

    hold_id: int
    reference: str
    state: HoldState
    release_date: datetime
    replayed: bool
    shares: tuple[AddedShare, ...] = ()


def find_holds(connection: AnyConnection, references: list[str]) -> dict[str, dict[str, object]]:
    """Return reference -> stored hold, without the references that have no hold."""
    rows = fetch(connection, "intake/find_holds", references=array_text(references))
    return {row["reference"]: dict(row) for row in rows}


def replay_or_refusal(item: DatedEarning, existing: dict[str, object]) -> AddedHold | Refused:
    """Return the stored hold if the earning has its content, else the refusal."""
    earning, hold_id, release_date = item.earning, existing["hold_id"], existing["release_date"]
    assert isinstance(hold_id, int)
    assert isinstance(release_date, datetime)
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
    if item.date_is_given:
        content["original_release_date"] = item.release_date
    if earning.rule is not None:
        content["rule"] = earning.rule
    for name, value in content.items():
        if existing[name] != value:
            return _conflict(item, existing, _show(name, existing[name], item), _show(name, value, item))
    if earning.metadata is not None:
        has, repeats = read_metadata(existing["metadata"]), read_metadata(item.checked.metadata)
        if (key := differing_key(has, repeats)) is not None:
            return _conflict(item, existing, _show_metadata(has, key), _show_metadata(repeats, key))
    shares = _shares(existing)
    # Shares that are not given are not compared: their default depends on the rule that applies.
    if earning.shares and not _same(shares, item.shares):
        return _conflict(item, existing, _list(shares, item), _list(item.shares, item))
    return AddedHold(
        hold_id=hold_id,
        reference=earning.reference,
        state=HoldState(str(existing["state"])),
        release_date=release_date,
        replayed=True,
        shares=shares,
    )


def _shares(existing: dict[str, Any]) -> tuple[AddedShare, ...]:
    if existing["share_ids"] is None:
        return ()
    return tuple(
        AddedShare(
            hold_id=hold_id,
            kind=ShareKind(kind),
            owner=owner,
            amount_minor=amount_minor,
            release_date=release_date,
        )
        for hold_id, kind, owner, amount_minor, release_date in zip(
            existing["share_ids"],
            existing["share_kinds"],
            existing["share_owners"],
            existing["shares_minor"],
            existing["share_dates"],
            strict=True,
        )
    )


def _same(existing: Sequence[AddedShare], shares: Sequence[DatedShare]) -> bool:
    """Return whether the shares are the same; of the dates only those that the caller gave are compared."""
    return len(existing) == len(shares) and all(
        (one.kind, one.owner, one.amount_minor) == (other.kind, other.owner, other.amount_minor)
        and (not other.date_is_given or one.release_date == other.release_date)
        for one, other in zip(existing, shares, strict=True)
    )


def _list(shares: Sequence[AddedShare | DatedShare], item: DatedEarning) -> str:
    if not shares:
        return "no shares"
    return "shares " + ", ".join(
        f"{share.kind} {format_amount(share.amount_minor, item.checked.places)} {share.owner!r}"
        f" {share.release_date.isoformat()}"
        for share in shares
    )


def _conflict(item: DatedEarning, existing: dict[str, object], has: str, repeats: str) -> ReferenceConflict:
    hold_id, reference = existing["hold_id"], item.earning.reference
    assert isinstance(hold_id, int)
    return ReferenceConflict(
        f"reference {reference!r}: already used for hold {hold_id} with {has}, not {repeats}",
        reference=reference,
        hold_id=hold_id,
        job=str(existing["job"]),
    )


def _show(name: str, value: object, item: DatedEarning) -> str:
    if name == "amount_minor":
        assert isinstance(value, int)
        # The currency is the same: it was compared before the amount.
        return f"amount {format_amount(value, item.checked.places)} {item.earning.currency}"
    if isinstance(value, datetime):
        return f"{name.removeprefix('original_')} {value.isoformat()}"
    return f"{name} {value!r}"


def _show_metadata(metadata: Metadata, key: str) -> str:
    return f"metadata {shown_metadata({key: metadata[key]} if key in metadata else {})}"
