"""The books note each file of a batch, so that nobody sends two of them."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.errors import InvalidInput, NotFound, PayoutRefused
from buffer_pipeline.payouts import PayoutExported, payout_exports, record_payout_export
from buffer_pipeline_tests.support.builders import all_at_once, books
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    DAY_3,
    MAKER,
    make_batch,
    mark,
    payable,
    request,
    said,
    send_batch,
)

DIGEST = hashlib.sha256(b"a file").digest()


def note(connection: Connection, payout_batch_id: int, **changes: Any) -> tuple[PayoutExported, ...]:
    """Note an export of a batch, with some arguments changed."""
    given = {"format_name": "csv", "file_digest": DIGEST, "by": MAKER, "now": DAY_3}
    return record_payout_export(connection, payout_batch_id=payout_batch_id, **{**given, **changes})


@pytest.fixture
def sent(connection: Connection) -> int:
    """The id of a sent batch."""
    payable(connection)
    request(connection)
    return send_batch(connection).payout_batch_id


def test_each_export_is_noted_with_who_when_and_what(connection: Connection, sent: int) -> None:
    """The second one knows the first."""
    note(connection, sent)
    later = DAY_3 + timedelta(hours=1)

    found = note(connection, sent, format_name="pain.001", file_digest=b"2" * 32, by=APPROVER, now=later)

    assert [
        (each.number, each.format, each.digest, each.exported_by, each.exported_at) for each in found
    ] == [(1, "csv", DIGEST, MAKER, DAY_3), (2, "pain.001", b"2" * 32, APPROVER, later)]
    assert payout_exports(connection, payout_batch_id=sent) == found


def test_one_of_two_exports_at_once_is_the_second(engine: Engine) -> None:
    """Each waits for the other."""
    with engine.begin() as connection:
        payable(connection)
        request(connection)
        batch = send_batch(connection).payout_batch_id

    outcomes = all_at_once(engine, *[lambda connection: note(connection, batch)] * 3)

    assert sorted(len(each) for each in outcomes) == [1, 2, 3]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "refusal", "message"),
    [
        ({"payout_batch_id": 99}, NotFound, "payout batch 99: does not exist"),
        ({"file_digest": b"short"}, InvalidInput, "not the 32 bytes"),
        ({"format_name": ""}, InvalidInput, "format_name"),
        ({"by": ""}, InvalidInput, "by"),
    ],
)
def test_bad_input_is_refused(
    connection: Connection, sent: int, changes: dict[str, Any], refusal: type[Exception], message: str
) -> None:
    """Nothing is written."""
    before = books(connection)

    with pytest.raises(refusal, match=message):
        note(connection, **{"payout_batch_id": sent, **changes})

    assert books(connection) == before


def test_only_a_sent_batch_is_exported(connection: Connection) -> None:
    """Before that a payout of it could be cancelled."""
    payable(connection)
    request(connection)
    batch = make_batch(connection)

    with pytest.raises(PayoutRefused, match="is MADE; only a SENT one is exported") as refused:
        note(connection, batch.payout_batch_id)

    assert (refused.value.payout_batch_id, refused.value.state) == (batch.payout_batch_id, "MADE")


def test_a_noted_export_is_kept(connection: Connection, sent: int) -> None:
    """A trigger refuses a change, whoever tries."""
    note(connection, sent)

    for change in ("UPDATE {} SET format = 'x'", "DELETE FROM {}"):
        with pytest.raises(DBAPIError, match=r"kept as they were written|denied"), connection.begin_nested():
            connection.execute(text(change.format("buffer.payout_export")))


def test_batch_of_which_something_came_back_is_not_exported_again(connection: Connection) -> None:
    """A file would pay what is in the balance again. A batch that is paid can be exported."""
    payable(connection)
    first, second = (request(connection, amount=amount).payout_id for amount in ("10.00", "20.00"))
    batch = send_batch(connection)
    mark(connection, batch, said(second))
    note(connection, batch.payout_batch_id)
    mark(connection, batch, said(first, "RETURNED"))

    with pytest.raises(PayoutRefused, match=r"1 of its payouts came back.*Request new payouts instead"):
        note(connection, batch.payout_batch_id)

    assert len(payout_exports(connection, payout_batch_id=batch.payout_batch_id)) == 1
