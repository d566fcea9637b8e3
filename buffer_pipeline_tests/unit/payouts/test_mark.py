"""A status file marks payouts as paid or returned; what is returned is back in the balance at once."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, select

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.errors import InvalidInput, NotFound, PayoutRefused, WalletFull
from buffer_pipeline.payouts import (
    MarkedPayouts,
    PayoutBatch,
    PayoutResult,
    approve_payout_batch,
    make_payout_batch,
    payout_status_files,
    send_payout_batch,
)
from buffer_pipeline.tables import notification, payout
from buffer_pipeline_tests.support.builders import NOON, PAYEE, Wallet, books, wallet_of
from buffer_pipeline_tests.support.full_wallets import fill_wallet
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    DAY_3,
    IDS,
    MAKER,
    give,
    lines_of,
    make_batch,
    mark,
    payable,
    request,
    said,
    send_batch,
    state_of_payout,
    to_iban,
)

OTHER = "worker-18"


@pytest.fixture
def sent(connection: Connection) -> tuple[PayoutBatch, list[int]]:
    """A sent batch: two payouts of PAYEE, and one of OTHER between them."""
    payable(connection)
    payable(connection, OTHER)
    ids = [request(connection, owner, amount=amount).payout_id for owner, amount in (
        (PAYEE, "100.00"), (OTHER, "70.00"), (PAYEE, "30.00")
    )]  # fmt: skip
    return send_batch(connection), ids


def told(connection: Connection, owner: str) -> list[str]:
    """Return the types of an owner's notifications."""
    found = notification.c
    return list(
        connection.scalars(select(found.type).where(found.owner == owner).order_by(found.notification_id))
    )


def test_paid_money_leaves_transit(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """The balance stays, and the owner is told."""
    batch, ids = sent

    done = mark(connection, batch, said(ids[0]), said(ids[1]))

    assert done == MarkedPayouts(paid=2, returned=0, unknown=())
    assert [state_of_payout(connection, id_) for id_ in ids] == ["PAID", "PAID", "SENT"]
    assert lines_of(connection, ids[0])[1:] == [("PAYOUT_PAID", "TRANSIT", "EXTERNAL", 10_000, None)]
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=87_000)
    assert told(connection, OTHER) == ["PAYOUT_SENT", "PAYOUT_PAID"]
    assert reconcile(connection) == []


def test_returned_money_is_back_in_the_same_commit(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """With the bank's reason, in the balance and not held. Two of one wallet follow each other."""
    batch, ids = sent

    done = mark(
        connection, batch, said(ids[2], "RETURNED"), said(ids[0], "RETURNED", "  AC01\nwrong account ")
    )

    assert done == MarkedPayouts(paid=0, returned=2, unknown=())
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=100_000)
    assert lines_of(connection, ids[0])[1:] == [("PAYOUT_RETURNED", "TRANSIT", "BALANCE", 10_000, 97_000)]
    assert lines_of(connection, ids[2])[1:] == [("PAYOUT_RETURNED", "TRANSIT", "BALANCE", 3_000, 100_000)]
    reasons = connection.execute(select(payout.c.return_reason).order_by(payout.c.payout_id)).scalars().all()
    assert reasons == ["AC01 wrong account", None, "AC04 account closed"]
    assert told(connection, PAYEE) == ["PAYOUT_SENT", "PAYOUT_SENT", "PAYOUT_RETURNED", "PAYOUT_RETURNED"]
    assert reconcile(connection) == []


def test_paid_payout_can_come_back(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """Weeks later; then the money comes from outside."""
    batch, ids = sent
    mark(connection, batch, said(ids[0]))

    done = mark(connection, batch, said(ids[0], "RETURNED"))

    assert done.returned == 1
    assert lines_of(connection, ids[0])[1:] == [
        ("PAYOUT_PAID", "TRANSIT", "EXTERNAL", 10_000, None),
        ("PAYOUT_RETURNED", "EXTERNAL", "BALANCE", 10_000, 97_000),
    ]
    assert reconcile(connection) == []


def test_one_file_can_say_both(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """A statement of a month has the payment and its return, in any order."""
    batch, ids = sent

    lines = (said(ids[0], "RETURNED"), said(ids[0]))
    done = mark(connection, batch, *(replace(line, unordered=True) for line in lines))

    assert (done.paid, done.returned) == (1, 1)
    assert state_of_payout(connection, ids[0]) == "RETURNED"
    assert wallet_of(connection, PAYEE) == Wallet(balance_minor=97_000)
    assert reconcile(connection) == []


def test_the_last_line_of_a_payout_counts(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """If the order of the file means something: a provider that tried again has paid it."""
    batch, ids = sent

    done = mark(connection, batch, said(ids[0], "RETURNED"), said(ids[0]))

    assert (done.paid, done.returned) == (1, 0)
    assert state_of_payout(connection, ids[0]) == "PAID"
    assert reconcile(connection) == []


def test_a_file_without_a_final_status_changes_nothing(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """A bank's first answer often has none. It is not noted, so it does not count as imported."""
    batch, _ = sent
    before = books(connection)

    assert mark(connection, batch) == MarkedPayouts(paid=0, returned=0, unknown=())
    assert books(connection) == before


def test_same_lines_again_change_nothing(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """In another file, which is noted too: the files of a bank overlap."""
    batch, ids = sent
    lines = (said(ids[0]), said(ids[1], "RETURNED"), said(ids[2]), said(ids[2], "RETURNED"))
    mark(connection, batch, *lines)
    before = books(connection)

    again = mark(connection, batch, *lines, *lines)

    assert again == MarkedPayouts(paid=0, returned=0, unknown=())
    after = books(connection)
    assert {name for name in after if after[name] != before[name]} == {"payout_status_file"}


def test_unknown_lines_are_reported_and_the_rest_is_marked(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """A payout of another batch, one that does not exist, and an id that is none of ours."""
    batch, ids = sent
    elsewhere = request(connection).payout_id

    done = mark(
        connection,
        batch,
        said(ids[0]),
        said(999),
        PayoutResult(end_to_end_id="rent-2026-03", outcome="PAID"),
        said(elsewhere, "RETURNED"),
    )

    assert done.paid == 1
    assert done.unknown == ("rent-2026-03", IDS.of_payout(elsewhere), IDS.of_payout(999))
    assert state_of_payout(connection, elsewhere) == "REQUESTED"
    (stored,) = payout_status_files(connection, payout_batch_id=batch.payout_batch_id)
    assert (stored.paid, stored.returned, stored.imported_by) == (1, 0, MAKER)
    assert (stored.unknown, stored.differing, stored.conflicting) == (done.unknown, (), ())


def test_file_of_another_batch_is_refused(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """None of its lines is of this batch, so nothing is written."""
    _, ids = sent
    request(connection)
    other = send_batch(connection)
    before = books(connection)

    with pytest.raises(PayoutRefused, match="no line of the file is a payout of it") as refused:
        mark(connection, other, said(ids[0]), said(ids[1], "RETURNED"))

    assert refused.value.payout_batch_id == other.payout_batch_id
    assert books(connection) == before


def test_file_without_a_known_line_is_refused(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """The first of the lines is named."""
    with pytest.raises(PayoutRefused, match=r"; the first of them is 'rent'$"):
        mark(connection, sent[0], PayoutResult(end_to_end_id="rent", outcome="PAID"))


def test_same_file_is_refused_by_name(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """By its digest, also with other lines. Another batch may import it."""
    batch, ids = sent
    digest = hashlib.sha256(b"a file").digest()
    mark(connection, batch, said(ids[0]), file_digest=digest)
    elsewhere = request(connection).payout_id
    other = send_batch(connection)
    before = books(connection)

    answer = f"this file was imported by '{MAKER}' at 2026-03-05.*: 1 paid, 0 returned, 0 unknown"
    with pytest.raises(PayoutRefused, match=answer) as refused:
        mark(connection, batch, said(ids[1]), file_digest=digest)

    assert (refused.value.payout_batch_id, refused.value.state) == (batch.payout_batch_id, "IMPORTED")
    assert books(connection) == before
    assert mark(connection, other, said(elsewhere), file_digest=digest).paid == 1


@pytest.mark.parametrize("state", ["MADE", "APPROVED"])
def test_return_of_what_was_never_sent_is_refused(connection: Connection, state: str) -> None:
    """A bank cannot know it."""
    payable(connection)
    payout_id = request(connection).payout_id
    batch = make_batch(connection)
    if state == "APPROVED":
        approve_payout_batch(connection, payout_batch_id=batch.payout_batch_id, by=APPROVER, now=DAY_3)
    before = books(connection)

    with pytest.raises(PayoutRefused, match=f"is {state}; only what was SENT is paid or returned") as refused:
        mark(connection, batch, said(payout_id, "RETURNED"))

    assert (refused.value.state, refused.value.allowed) == (state, ("SENT",))
    assert books(connection) == before


def test_paid_after_it_came_back_is_reported(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """The owner has the money again, so a person has to ask the bank. The other lines are marked."""
    batch, ids = sent
    mark(connection, batch, said(ids[0], "RETURNED"))
    before = wallet_of(connection, PAYEE)

    done = mark(connection, batch, said(ids[1]), said(ids[0]))

    assert done == MarkedPayouts(paid=1, returned=0, unknown=(), conflicting=(IDS.of_payout(ids[0]),))
    assert state_of_payout(connection, ids[0]) == "RETURNED"
    assert wallet_of(connection, PAYEE) == before
    assert reconcile(connection) == []


def test_full_wallet_cannot_take_a_return(connection: Connection) -> None:
    """Nothing of the file is written."""
    fill_wallet(connection, PAYEE, capacity_minor=0)
    to_iban(connection)
    payout_id = request(connection).payout_id
    batch = send_batch(connection)
    give(connection, amount="100.00")

    with pytest.raises(WalletFull, match=f"payout batch {batch.payout_batch_id}: a wallet cannot take"):
        mark(connection, batch, said(payout_id, "RETURNED"))


@pytest.mark.parametrize(
    ("changes", "refusal", "message"),
    [
        ({"payout_batch_id": 99}, NotFound, "payout batch 99: does not exist"),
        ({"payout_batch_id": 0}, NotFound, "payout batch 0"),
        ({"file_digest": b"short"}, InvalidInput, "not the 32 bytes of a SHA-256"),
        ({"file_digest": "x" * 32}, InvalidInput, "not the 32 bytes"),
        ({"by": ""}, InvalidInput, "by"),
        ({"results": [PayoutResult(end_to_end_id="x", outcome="LOST")]}, InvalidInput, "is not PAID or"),
        ({"results": [PayoutResult(end_to_end_id="x\0", outcome="PAID")]}, InvalidInput, "end_to_end_id"),
    ],
)
def test_bad_input_is_refused(
    connection: Connection,
    sent: tuple[PayoutBatch, list[int]],
    changes: dict[str, Any],
    refusal: type[Exception],
    message: str,
) -> None:
    """Nothing is written."""
    before = books(connection)

    with pytest.raises(refusal, match=message):
        mark(connection, sent[0], said(sent[1][0]), **changes)

    assert books(connection) == before


@pytest.mark.parametrize("reason", [None, "", " \n\t", "\x00"])
def test_return_without_a_reason_has_one(
    connection: Connection, sent: tuple[PayoutBatch, list[int]], reason: str | None
) -> None:
    """A reason that says nothing is stored as that."""
    batch, ids = sent

    mark(
        connection,
        batch,
        PayoutResult(end_to_end_id=IDS.of_payout(ids[0]), outcome="RETURNED", reason=reason),
    )

    row = connection.execute(select(payout.c.return_reason).where(payout.c.payout_id == ids[0])).scalar()
    assert row == "no reason given"


def test_long_reason_is_cut(connection: Connection, sent: tuple[PayoutBatch, list[int]]) -> None:
    """At 500 characters; quotes and backslashes stay."""
    batch, ids = sent

    mark(connection, batch, said(ids[0], "RETURNED", '"{a}\\' + "x" * 600))

    stored = connection.scalar(select(payout.c.return_reason).where(payout.c.payout_id == ids[0]))
    assert stored == '"{a}\\' + "x" * 495


def test_returned_payout_can_be_requested_again(
    connection: Connection, sent: tuple[PayoutBatch, list[int]]
) -> None:
    """It is in the balance, so the next payout takes it."""
    batch, ids = sent
    mark(connection, batch, said(ids[0], "RETURNED"))

    again = request(connection, everything=True)

    assert again.amount_minor == 97_000
    made = make_payout_batch(connection, currency="PHP", by=MAKER, now=NOON.replace(day=9))
    approve_payout_batch(connection, payout_batch_id=made.payout_batch_id, by=APPROVER, now=DAY_3)
    assert (
        send_payout_batch(connection, payout_batch_id=made.payout_batch_id, by=MAKER, now=DAY_3).payouts == 1
    )
    assert reconcile(connection) == []
