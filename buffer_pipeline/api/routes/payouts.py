"""Payouts, the destinations that they go to, and owners' schedules."""

from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Amount, Body, By, Filters, Id, Reason
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import NOT_FOR_OPERATORS, read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.holds import Cursor, Limit
from buffer_pipeline.payouts import Destination, OwnerSchedule, Payout
from buffer_pipeline.payouts import cancel_payout as cancel
from buffer_pipeline.payouts import request_payout as request
from buffer_pipeline.payouts import set_destination as set_destination_verb
from buffer_pipeline.payouts import set_payout_schedule as set_schedule
from buffer_pipeline.payouts import show_destination as show_destination_read
from buffer_pipeline.payouts import show_payout_schedule as show_schedule
from buffer_pipeline.reads import Page, PayoutRecord
from buffer_pipeline.reads import list_payouts as list_payouts_read

router: Final = new_router("payouts")


class PayoutFilters(Filters):
    """Which payouts to list."""

    owner: str | None = None
    state: Literal["REQUESTED", "BATCHED", "SENT", "PAID", "RETURNED", "CANCELLED"] | None = None
    payout_batch_id: Id | None = None
    oldest_first: bool = False
    limit: Limit = 10
    cursor: Cursor = None


class OwnerFilter(Filters):
    """Whose."""

    owner: str


class PayoutBody(Body):
    """An amount, or with `everything` all of the balance, to pay out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "owner": "worker-17",
                    "currency": "PHP",
                    "amount": "20.00",
                    "by": "worker-17",
                    "reference": "payout-1",
                }
            ]
        }
    )

    owner: str
    currency: str
    by: By
    reference: str
    amount: Amount | None = None
    everything: bool = False
    override: bool = False
    reason: str | None = None


class CancelBody(Body):
    """Who cancels, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"by": "worker-17", "reason": "changed my mind"}]}
    )

    by: By
    reason: Reason


class DestinationBody(Body):
    """Where an owner's payouts go from now on. An IBAN needs the name of its holder."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "owner": "worker-17",
                    "method": "TOKEN",
                    "account": "acct_1NirD82eZvKYlo2C",
                    "by": "worker-17",
                    "reason": "first account",
                }
            ]
        }
    )

    owner: str
    method: Literal["IBAN", "TOKEN"]
    account: str
    by: By
    reason: Reason
    holder_name: str | None = None


class ScheduleBody(Body):
    """When an owner's balances are paid out automatically."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"owner": "worker-17", "schedule": "WEEKLY", "by": "worker-17", "reason": "asked"}]
        }
    )

    owner: str
    schedule: Literal["MANUAL", "DAILY", "WEEKLY", "MONTHLY"]
    by: By
    reason: Reason


@read(router, "/payouts", answer=PayoutRecord, page=True)
def list_payouts(call: Call, filters: Annotated[PayoutFilters, Query()]) -> Page[PayoutRecord]:
    """List payouts, the newest first."""
    return list_payouts_read(call.connection, **filters.facts())


@write(router, "/payouts", answer=Payout, not_for=NOT_FOR_OPERATORS)
def request_payout(call: Call, body: PayoutBody) -> Payout:
    """Take an amount, or all of a balance, out of it for a payout."""
    return request(call.connection, **body.facts(), now=call.now, policy=call.settings.payout_policy)


@write(router, "/payouts/{payout_id}/cancel", answer=Payout)
def cancel_payout(call: Call, payout_id: Id, body: CancelBody) -> Payout:
    """Cancel a payout before it is sent: its money is back in the balance."""
    return cancel(call.connection, payout_id=payout_id, **body.facts(), now=call.now)


@read(router, "/payout-destination", answer=Destination)
def show_destination(call: Call, filters: Annotated[OwnerFilter, Query()]) -> Destination:
    """Show where an owner's payouts go, the account masked."""
    return show_destination_read(call.connection, owner=filters.owner)


@write(router, "/payout-destination", method="PUT", answer=Destination, not_for=NOT_FOR_OPERATORS)
def set_destination(call: Call, body: DestinationBody) -> Destination:
    """Set where an owner's payouts go from now on."""
    return set_destination_verb(call.connection, **body.facts(), now=call.now)


@read(router, "/payout-schedule", answer=OwnerSchedule)
def show_payout_schedule(call: Call, filters: Annotated[OwnerFilter, Query()]) -> OwnerSchedule:
    """Show when an owner's balances are paid out automatically."""
    return show_schedule(call.connection, owner=filters.owner)


@write(router, "/payout-schedule", method="PUT", answer=OwnerSchedule, not_for=NOT_FOR_OPERATORS)
def set_payout_schedule(call: Call, body: ScheduleBody) -> OwnerSchedule:
    """Set when an owner's balances are paid out automatically."""
    return set_schedule(call.connection, **body.facts(), now=call.now)
