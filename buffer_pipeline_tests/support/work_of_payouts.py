"""The work with payouts: what the platform asks for, and what the role `buffer_payouts` sends and marks."""

from typing import Any, Final

import pytest
from sqlalchemy import Engine

from buffer_pipeline.cli.session import login_of
from buffer_pipeline.database import fetch
from buffer_pipeline.errors import PayoutRefused
from buffer_pipeline.explain import explain_hold
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.payouts import (
    PayoutState,
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    make_payout_batch,
    make_scheduled_batches,
    mark_payouts,
    payout_exports,
    payout_lines,
    payout_status_files,
    record_payout_export,
    request_payout,
    request_scheduled_payouts,
    send_payout_batch,
    set_destination,
    set_payout_schedule,
    show_destination,
    show_payout_schedule,
)
from buffer_pipeline.payouts.result import Outcome, PayoutResult
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.reports.debts import debts_of_day
from buffer_pipeline.reports.payouts import (
    batches_of_day,
    show_payout_batch,
    stuck_batches,
    unanswered_payouts,
    unsent_batches,
)
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import NOON
from buffer_pipeline_tests.support.payouts import APPROVER, HOLDER, IBAN, MAKER
from buffer_pipeline_tests.support.read_rows import all_holds, all_payouts

OWNERS: Final = ("worker-31", "worker-32", "worker-33")
AT_ONCE: Final = PayoutPolicy(destination_wait_hours=0)


def payouts_are_requested(platform: Engine) -> None:
    """Set destinations and schedules, request, replay and cancel."""
    with platform.begin() as connection:
        now = clock_of_a_writer(connection)
        asked: dict[str, Any] = {"currency": "PHP", "amount": "10.00", "by": "shop", "now": now}
        for owner in OWNERS:
            deposit(connection, owner=owner, amount="50", currency="PHP", reference=f"in-{owner}", now=now)
            set_destination(
                connection,
                owner=owner,
                method="IBAN",
                account=IBAN,
                holder_name=HOLDER,
                by="shop",
                reason="new",
                now=now,
            )
            assert show_destination(connection, owner=owner).account == "DE****3000"
            for _ in ("first", "again"):
                request_payout(connection, owner=owner, reference=f"out-{owner}", **asked)
        done = request_payout(connection, owner=OWNERS[0], reference="out-again", **asked)
        cancel_payout(connection, payout_id=done.payout_id, by="shop", reason="asked", now=now)
        set_payout_schedule(connection, owner=OWNERS[0], schedule="DAILY", by="shop", reason="asked", now=now)
        assert show_payout_schedule(connection, owner=OWNERS[0]).schedule == "DAILY"


def payouts_are_sent(payouts: Engine) -> None:
    """Request what is scheduled, make, cancel, approve and send batches, read their lines, and mark them."""
    with payouts.begin() as connection:
        now = clock_of_a_writer(connection)
        assert login_of(connection) == payouts.url.username
        assert request_scheduled_payouts(connection, by="schedule", now=now).payouts == 1
        made = make_payout_batch(connection, currency="PHP", by=MAKER, policy=AT_ONCE, now=now)
        with pytest.raises(PayoutRefused), connection.begin_nested():
            make_payout_batch(connection, currency="PHP", by=MAKER, policy=AT_ONCE, now=now)
        cancel_payout_batch(
            connection, payout_batch_id=made.payout_batch_id, by=MAKER, reason="wrong", now=now
        )
        id_ = make_payout_batch(connection, currency="PHP", by=MAKER, policy=AT_ONCE, now=now).payout_batch_id
        approve_payout_batch(connection, payout_batch_id=id_, by=APPROVER, now=now)
        send_payout_batch(connection, payout_batch_id=id_, by=MAKER, now=now)
        record_payout_export(
            connection, payout_batch_id=id_, format_name="csv", file_digest=b"2" * 32, by=MAKER, now=now
        )
        lines = list(payout_lines(connection, payout_batch_id=id_))
        assert [line.account for line in lines] == [IBAN] * 4
        assert fetch(connection, "payouts/may_pay_out")[0]["may"]
        assert make_scheduled_batches(connection, by="schedule", policy=AT_ONCE, now=now).batches == ()
        # The number of the books is in the ids, and these may be any books.
        first, second, *_ = (line.end_to_end_id for line in lines)
        mark_payouts(
            connection,
            payout_batch_id=id_,
            results=[
                PayoutResult(end_to_end_id=first, outcome=Outcome.PAID),
                PayoutResult(end_to_end_id=second, outcome=Outcome.RETURNED, reason="AC04 account closed"),
            ],
            by=MAKER,
            file_digest=b"1" * 32,
            now=now,
        )


def a_batched_payout_is_cancelled(platform: Engine, payouts: Engine) -> None:
    """The platform takes a payout out of a batch that the payouts' role has made, and so does that role."""
    with platform.begin() as connection:
        now = clock_of_a_writer(connection)
        asked: dict[str, Any] = {"currency": "PHP", "amount": "5.00", "by": "shop", "now": now}
        done = [
            request_payout(connection, owner=OWNERS[1], reference=f"late-{number}", **asked)
            for number in range(4)
        ]
    with payouts.begin() as connection:
        make_payout_batch(connection, currency="PHP", by=MAKER, policy=AT_ONCE, now=now)
    for engine, each in zip((platform, payouts, platform, payouts), done, strict=True):
        with engine.begin() as connection:
            cancelled = cancel_payout(
                connection, payout_id=each.payout_id, by="shop", reason="asked", now=now
            )
            assert cancelled.state == PayoutState.CANCELLED


def payouts_are_read(engine: Engine) -> None:
    """List payouts and batches, as every role may."""
    with engine.begin() as connection:
        rows = all_payouts(connection, owner=OWNERS[0])
        assert {row["account"] for row in rows} == {"DE****3000", None}
        for hold in all_holds(connection)[:2]:
            for at in (None, NOON):
                explain_hold(connection, hold_id=hold["hold_id"], now=at)
        batch = next(row["payout_batch_id"] for row in rows if row["payout_batch_id"] is not None)
        found = show_payout_batch(connection, payout_batch_id=batch)
        assert unanswered_payouts(connection, sent_by=found["made_at"]) != []
        assert unsent_batches(connection, made_by=found["made_at"]) == []
        (exported,) = payout_exports(connection, payout_batch_id=batch)
        (imported,) = payout_status_files(connection, payout_batch_id=batch)
        assert exported.exported_by == imported.imported_by == MAKER
        assert batches_of_day(connection, day=found["made_at"].date()) != []
        stuck_batches(connection, now=found["made_at"], policy=AT_ONCE)
        debts_of_day(connection, day=found["made_at"].date())
