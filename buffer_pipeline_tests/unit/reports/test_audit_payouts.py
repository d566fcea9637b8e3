"""The audit trail of payouts and of debts that have no transaction."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.payouts import (
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    record_payout_export,
    send_payout_batch,
    set_payout_schedule,
)
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYEE
from buffer_pipeline_tests.support.debts import forgive, place_released, put_in, recover_now, take_back
from buffer_pipeline_tests.support.payouts import (
    APPROVER,
    DAY_3,
    MAKER,
    MASKED,
    make_batch,
    mark,
    payable,
    request,
    said,
)

HOUR = timedelta(hours=1)


@pytest.fixture
def paid_out(connection: Connection) -> Connection:
    """Books with a payout that was sent and returned, one that was cancelled, and a cancelled batch."""
    payable(connection)
    set_payout_schedule(connection, owner=PAYEE, schedule="WEEKLY", by=ADMIN, reason="asked", now=NOON + HOUR)
    first = request(connection, reference="payday-1", now=NOON + 2 * HOUR)
    second = request(
        connection,
        override=True,
        reason="checked by phone",
        by=ADMIN,
        reference="payday-2",
        now=NOON + 3 * HOUR,
    )
    wrong = make_batch(connection, now=DAY_3)
    cancel_payout_batch(
        connection, payout_batch_id=wrong.payout_batch_id, by=MAKER, reason="wrong day", now=DAY_3 + HOUR
    )
    cancel_payout(connection, payout_id=second.payout_id, by=ADMIN, reason="asked", now=DAY_3 + 2 * HOUR)
    batch = make_batch(connection, now=DAY_3 + 3 * HOUR)
    id_ = batch.payout_batch_id
    approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=DAY_3 + 4 * HOUR)
    send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=DAY_3 + 5 * HOUR)
    record_payout_export(
        connection,
        payout_batch_id=id_,
        format_name="pain.001",
        file_digest=b"1" * 32,
        by=APPROVER,
        now=DAY_3 + 5.5 * HOUR,
    )
    mark(connection, batch, said(first.payout_id, "RETURNED"), said(99), now=DAY_3 + 6 * HOUR)
    return connection


def short(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return verb, owner, person and reason of each line but deposits."""
    return [
        (line["verb"], line["owner"], line["by"], line["reason"])
        for line in lines
        if line["verb"] != "DEPOSIT"
    ]


OF_OWNER = [
    ("CANCEL_PAYOUT", PAYEE, ADMIN, "asked"),
    ("REQUEST_PAYOUT", PAYEE, ADMIN, "checked by phone"),
    ("REQUEST_PAYOUT", PAYEE, PAYEE, None),
    ("SET_PAYOUT_SCHEDULE", PAYEE, ADMIN, "asked"),
    ("SET_DESTINATION", PAYEE, ADMIN, "new"),
]


def test_every_decision_about_payouts_is_a_line(paid_out: Connection) -> None:
    """The newest first. A batch and a status file have no owner."""
    lines = audit_trail(paid_out)

    assert short(lines) == [
        ("MARK_PAYOUTS", None, MAKER, None),
        ("EXPORT_PAYOUT_BATCH", None, APPROVER, None),
        ("SEND_PAYOUT_BATCH", None, MAKER, None),
        ("APPROVE_PAYOUT_BATCH", None, APPROVER, None),
        ("MAKE_PAYOUT_BATCH", None, MAKER, None),
        OF_OWNER[0],
        ("CANCEL_PAYOUT_BATCH", None, MAKER, "wrong day"),
        ("MAKE_PAYOUT_BATCH", None, MAKER, None),
        *OF_OWNER[1:],
    ]


def test_lines_say_what_the_verb_knows(paid_out: Connection) -> None:
    """Ids, amounts, the override, and the account masked."""
    lines = {line["verb"]: line["detail"] for line in reversed(audit_trail(paid_out))}

    assert (
        lines["REQUEST_PAYOUT"].items()
        >= {
            "amount_minor": 10_000,
            "currency": "PHP",
            "reference": "payday-2",
            "override": True,
        }.items()
    )
    assert lines["SET_DESTINATION"] == {"method": "IBAN", "account": MASKED, "version": 1}
    assert lines["SET_PAYOUT_SCHEDULE"] == {"schedule": "WEEKLY"}
    assert lines["EXPORT_PAYOUT_BATCH"] == {
        "payout_batch_id": lines["SEND_PAYOUT_BATCH"]["payout_batch_id"],
        "format": "pain.001",
        "number": 1,
        "sha256": (b"1" * 32).hex(),
    }
    counts = {"paid": 0, "returned": 1, "unknown": 1, "differing": 0, "conflicting": 0}
    assert lines["MARK_PAYOUTS"].items() >= counts.items()
    assert (
        lines["SEND_PAYOUT_BATCH"].items()
        >= {
            "payouts": 1,
            "method": "IBAN",
            "amount_minor": 10_000,
            "currency": "PHP",
        }.items()
    )


def test_each_filter(paid_out: Connection) -> None:
    """By owner, person and time, and with a limit. A hold has none of them."""
    assert short(audit_trail(paid_out, owner=PAYEE)) == OF_OWNER
    assert [verb for verb, *_ in short(audit_trail(paid_out, by=APPROVER))] == [
        "EXPORT_PAYOUT_BATCH",
        "APPROVE_PAYOUT_BATCH",
    ]
    assert [verb for verb, *_ in short(audit_trail(paid_out, since=DAY_3 + 5 * HOUR))] == [
        "MARK_PAYOUTS",
        "EXPORT_PAYOUT_BATCH",
        "SEND_PAYOUT_BATCH",
    ]
    assert [verb for verb, *_ in short(audit_trail(paid_out, limit=2))] == [
        "MARK_PAYOUTS",
        "EXPORT_PAYOUT_BATCH",
    ]
    assert short(audit_trail(paid_out, by=ADMIN, owner=PAYEE)) == [
        line for line in OF_OWNER if line[2] == ADMIN
    ]
    assert audit_trail(paid_out, owner="nobody") == audit_trail(paid_out, hold_id=1) == []


@pytest.mark.parametrize("by_hold", [True, False])
def test_claw_back_that_is_only_a_debt_is_a_line(connection: Connection, *, by_hold: bool) -> None:
    """With the amount and the debt, although no money has moved. So is what was paid and forgiven of it."""
    hold_id = place_released(connection, spent="1000.00")
    done = take_back(connection, hold_id, "250.00", now=DAY_7)
    put_in(connection, "100.00")
    recover_now(connection, reason="asked", now=DAY_7 + HOUR)
    forgive(connection, done.debt_ids[0], now=DAY_7 + 2 * HOUR)
    filters: dict[str, Any] = {"hold_id": hold_id} if by_hold else {"by": ADMIN}

    lines = [line for line in audit_trail(connection, **filters) if line["at"] >= DAY_7]

    assert [
        (line["verb"], line["owner"], line["hold_id"], line["detail"]["amount_minor"]) for line in lines
    ] == [
        ("FORGIVE_DEBT", PAYEE, lines[0]["hold_id"], 15_000),
        ("RECOVER_DEBT", PAYEE, lines[1]["hold_id"], 10_000),
        ("CLAW_BACK", PAYEE, hold_id, 25_000),
    ]
    assert {line["detail"]["debt_id"] for line in lines} == {done.debt_ids[0]}
    assert (lines[2]["by"], lines[2]["reason"]) == (ADMIN, "chargeback 17")
    assert lines[2]["detail"]["batch_id"] == done.clawback_id
    assert "transaction_id" not in lines[2]["detail"]
