"""Batches of payouts: make, approve, send, cancel, show."""

from dataclasses import asdict
from typing import Any, Final, Literal

from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Body, By, Id, Reason
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.models import BatchOfPayouts
from buffer_pipeline.payouts import (
    PayoutBatch,
    approve_payout_batch,
    cancel_payout_batch,
    make_payout_batch,
    payout_exports,
    send_payout_batch,
)
from buffer_pipeline.reports.payouts import show_payout_batch

router: Final = new_router("batches of payouts")


class MakeBody(Body):
    """The currency of a new batch; the method is needed if payouts by both are requested."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"currency": "PHP", "by": "finance-1"}]})

    currency: str
    by: By
    method: Literal["IBAN", "TOKEN"] | None = None


class ByBody(Body):
    """Who does it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "finance-2"}]})

    by: By


class CancelBatchBody(Body):
    """Who cancels, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "finance-1", "reason": "wrong day"}]})

    by: By
    reason: Reason


@write(router, "/payout-batches", answer=PayoutBatch)
def make_batch(call: Call, body: MakeBody) -> PayoutBatch:
    """Put what is requested in a currency into a batch."""
    return make_payout_batch(
        call.connection, **body.facts(), now=call.now, policy=call.settings.payout_policy
    )


@read(router, "/payout-batches/{payout_batch_id}", answer=BatchOfPayouts)
def show_batch(call: Call, payout_batch_id: Id) -> dict[str, Any]:
    """Show a batch: its state, its payouts and their sum, and the files that were written for it."""
    found = show_payout_batch(call.connection, payout_batch_id=payout_batch_id)
    exports = payout_exports(call.connection, payout_batch_id=payout_batch_id)
    return {**found, "exports": [asdict(each) for each in exports]}


@write(router, "/payout-batches/{payout_batch_id}/approve", answer=PayoutBatch)
def approve_batch(call: Call, payout_batch_id: Id, body: ByBody) -> PayoutBatch:
    """Approve a batch that somebody else has made."""
    return approve_payout_batch(
        call.connection, payout_batch_id=payout_batch_id, **body.facts(), now=call.now
    )


@write(router, "/payout-batches/{payout_batch_id}/send", answer=PayoutBatch)
def send_batch(call: Call, payout_batch_id: Id, body: ByBody) -> PayoutBatch:
    """Mark an approved batch as sent; its owners are notified."""
    return send_payout_batch(call.connection, payout_batch_id=payout_batch_id, **body.facts(), now=call.now)


@write(router, "/payout-batches/{payout_batch_id}/cancel", answer=PayoutBatch)
def cancel_batch(call: Call, payout_batch_id: Id, body: CancelBatchBody) -> PayoutBatch:
    """Cancel a batch before it is sent: its payouts wait for the next one."""
    return cancel_payout_batch(call.connection, payout_batch_id=payout_batch_id, **body.facts(), now=call.now)
