"""Mark the payouts of a batch as paid or returned, as the bank's status file says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import AnyConnection, Row, array_text, fetch, wallet_capacity_or_refusal
from buffer_pipeline.errors import BooksOutOfBalance, InvalidInput, NotFound, PayoutRefused
from buffer_pipeline.hours import enter_hour
from buffer_pipeline.inputs import require_id, require_text, require_time
from buffer_pipeline.locks import lock_wallets
from buffer_pipeline.payouts.bank_ids import bank_ids
from buffer_pipeline.payouts.result import PayoutResult, RestOfBatch
from buffer_pipeline.payouts.said import Said, read_results
from buffer_pipeline.payouts.state import PayoutBatchState, PayoutState

_DIGEST_LENGTH: Final = 32
_COUNTED: Final = ("paid", "returned", "unknown", "differing", "conflicting")


@dataclass(frozen=True, kw_only=True)
class MarkedPayouts:
    """How many payouts a status file has marked, without those that were marked before.

    Nothing was changed for the others that it names, and a person has to look at them. Their ids are stored
    with the file (`payout_status_files`):

    - `unknown` are the ids of its lines that are no payout of the batch: first those that are no payout at
      all.
    - `differing` are payouts for which it has another amount or currency than the books.
    - `conflicting` are payouts that it has as paid although they came back before, or as rejected although
      they are paid: the owner may have the money twice, so ask the bank.
    """

    paid: int
    returned: int
    unknown: tuple[str, ...]
    conflicting: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()


def mark_payouts(
    connection: AnyConnection,
    *,
    payout_batch_id: int,
    results: Iterable[PayoutResult | RestOfBatch],
    by: str,
    file_digest: bytes,
    now: datetime,
) -> MarkedPayouts:
    """Mark payouts of a SENT batch as PAID or RETURNED. Returned money is back in its balance at once.

    `file_digest` is the SHA-256 of the file that `results` come from; a file is imported once for a batch. A
    line that says what is so already changes nothing, so the files of a bank may overlap. A payout that was
    paid can be returned later, but not rejected. Lines that are no payout of this batch are reported as
    unknown, those of another amount or currency as differing, and those that contradict the books as
    conflicting; nothing is changed for them, and their ids are stored. A `RestOfBatch` is about all payouts
    of the batch that no line names. Returned money is not held again. Owners are notified.

    Raises:
        InvalidInput: a digest that is not 32 bytes, an outcome that is neither PAID nor RETURNED, or an id
            that cannot be stored.
        NotFound: no such batch.
        PayoutRefused: the batch is not SENT, so nothing of it can be paid or returned; the file was imported
            before; no line is of this batch; or it speaks of another number of payouts.
        WalletFull: a wallet cannot hold what comes back.
        BooksOutOfBalance: not all lines were marked; roll back.
    """
    require_time("now", now)
    require_text("by", by)
    require_id("payout batch", payout_batch_id)
    if not isinstance(file_digest, bytes) or len(file_digest) != _DIGEST_LENGTH:
        raise InvalidInput("file_digest: not the 32 bytes of a SHA-256")
    ids = bank_ids(connection)
    said = read_results(results, ids)
    if said.is_empty:
        # A bank's first answer often has no final status yet.
        return MarkedPayouts(paid=0, returned=0, unknown=())
    enter_hour(connection, now=now)
    batch = _require_sent(connection, payout_batch_id)
    _require_new(connection, payout_batch_id, file_digest)
    here = _payouts_of(connection, batch, said)
    unknown = [*said.unknown, *map(ids.of_payout, sorted(said.named - here.keys()))]
    if not here and not unknown:
        # What the file says of all others is about no payout: each line has a status that is not final.
        return MarkedPayouts(paid=0, returned=0, unknown=())
    if not here:
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: no line of the file is a payout of it; the first of them is"
            f" {unknown[0]!r}",
            payout_batch_id=payout_batch_id,
        )
    places = places_of(connection)[batch["currency"]]
    differing = {
        id_ for id_, row in here.items() if said.differs(id_, row["amount_minor"], batch["currency"], places)
    }
    paid = [
        id_
        for id_ in sorted(said.paid.keys() & here.keys() - differing)
        if here[id_]["state"] == PayoutState.SENT
    ]
    returned = [
        id_
        for id_ in sorted(said.returned.keys() & here.keys() - differing)
        if here[id_]["state"] != PayoutState.RETURNED and not said.is_refuted(id_, here[id_]["state"])
    ]
    to_look_at = {
        "unknown": unknown,
        "differing": [ids.of_payout(id_) for id_ in sorted(differing)],
        "conflicting": [ids.of_payout(id_) for id_ in _conflicting(said, here)],
    }
    fetch(
        connection,
        "payouts/add_status_file",
        payout_batch_id=payout_batch_id,
        digest=file_digest.hex(),
        imported_by=by,
        now=now,
        paid=len(paid),
        returned=len(returned),
        **{what: array_text(named) for what, named in to_look_at.items()},
    )
    # All wallets in one statement, by id, before any of them changes.
    lock_wallets(connection, (here[id_]["wallet_id"] for id_ in returned))
    _mark(connection, "payouts/mark_paid", paid, payout_batch_id=payout_batch_id, now=now)
    with wallet_capacity_or_refusal(connection, f"payout batch {payout_batch_id}: a wallet"):
        reasons = [said.returned[id_].reason for id_ in returned]
        _mark(
            connection,
            "payouts/mark_returned",
            returned,
            payout_batch_id=payout_batch_id,
            now=now,
            reasons=reasons,
        )
    return MarkedPayouts(
        paid=len(paid),
        returned=len(returned),
        **{what: tuple(named) for what, named in to_look_at.items()},
    )


def _payouts_of(connection: AnyConnection, batch: Row, said: Said) -> dict[int, Row]:
    """Return the payouts of the batch of which the file says something, and add to `said` what it says of all
    others together.

    Raises:
        PayoutRefused: the file speaks of all payouts of a batch that has another number of them.
    """
    id_ = batch["payout_batch_id"]
    rest = said.rest
    if rest is not None and rest.payouts not in {None, batch["payouts"]}:
        raise PayoutRefused(
            f"payout batch {id_}: has {batch['payouts']} payouts; the file speaks of {rest.payouts}",
            payout_batch_id=id_,
        )
    rows = fetch(
        connection,
        "payouts/states_in_batch",
        payout_batch_id=id_,
        payout_ids=array_text(sorted(said.named)),
        every_payout=rest is not None,
    )
    here = {row["payout_id"]: row for row in rows}
    said.say_of_the_rest(here.keys())
    return {each: row for each, row in here.items() if each in said.named}


def _require_sent(connection: AnyConnection, payout_batch_id: int) -> Row:
    # Before the lock: until it is sent, its payouts are locked before the batch. A sent batch stays so.
    found = fetch(connection, "payouts/find_batch", payout_batch_id=payout_batch_id)
    if not found:
        raise NotFound(f"payout batch {payout_batch_id}: does not exist", payout_batch_id=payout_batch_id)
    if found[0]["state"] != PayoutBatchState.SENT:
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: is {found[0]['state']}; only what was SENT is paid or returned",
            payout_batch_id=payout_batch_id,
            state=found[0]["state"],
            allowed=(PayoutBatchState.SENT,),
        )
    # One file of a batch at a time.
    return fetch(connection, "payouts/lock_batch", payout_batch_id=payout_batch_id)[0]


def _require_new(connection: AnyConnection, payout_batch_id: int, file_digest: bytes) -> None:
    imported = fetch(
        connection, "payouts/find_status_file", payout_batch_id=payout_batch_id, digest=file_digest.hex()
    )
    if imported:
        before = imported[0]
        counts = ", ".join(f"{before[what]} {what}" for what in _COUNTED)
        raise PayoutRefused(
            f"payout batch {payout_batch_id}: this file was imported by {before['imported_by']!r}"
            f" at {before['imported_at'].isoformat()}: {counts}",
            payout_batch_id=payout_batch_id,
            state="IMPORTED",
        )


def _conflicting(said: Said, here: Mapping[int, Row]) -> list[int]:
    """Return the payouts that are paid after all, or rejected after they were paid, by id.

    The first ones came back unpaid, and the file does not say so too.
    """
    after_all = {
        id_
        for id_ in said.paid.keys() - said.returned.keys()
        if id_ in here and here[id_]["state"] == PayoutState.RETURNED and not here[id_]["was_paid"]
    }
    refuted = {id_ for id_, row in here.items() if said.is_refuted(id_, row["state"])}
    return sorted(after_all | refuted)


def _mark(
    connection: AnyConnection,
    statement: str,
    payout_ids: list[int],
    *,
    payout_batch_id: int,
    now: datetime,
    reasons: list[str] | None = None,
) -> None:
    if not payout_ids:
        return
    more = {} if reasons is None else {"reasons": array_text(reasons)}
    marked = fetch(
        connection,
        statement,
        payout_batch_id=payout_batch_id,
        payout_ids=array_text(payout_ids),
        now=now,
        **more,
    )
    if marked[0]["payouts"] != len(payout_ids):
        raise BooksOutOfBalance(
            f"payout batch {payout_batch_id}: marked {marked[0]['payouts']} of {len(payout_ids)} payouts;"
            " roll back"
        )
