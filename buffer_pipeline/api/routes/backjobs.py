"""Backjobs: clients' requests to redo a job, and the decisions on them."""

from typing import Annotated, Final, Literal

from fastapi import Query
from pydantic import ConfigDict, Field

from buffer_pipeline.api.bodies import Amount, Body, By, Filters, Id, Reason, Reference
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.holds import Cursor, Limit
from buffer_pipeline.backjob import Backjob
from buffer_pipeline.backjob import approve_backjob as approve
from buffer_pipeline.backjob import reject_backjob as reject
from buffer_pipeline.backjob import request_backjob as request
from buffer_pipeline.backjob import withdraw_backjob as withdraw
from buffer_pipeline.reads import BackjobRecord, Page
from buffer_pipeline.reads import list_backjobs as list_backjobs_read

router: Final = new_router("backjobs")


class BackjobFilters(Filters):
    """Which backjobs to list."""

    job: str | None = None
    state: Literal["OPEN", "REJECTED", "APPROVED", "WITHDRAWN"] | None = None
    oldest_first: bool = False
    limit: Limit = 10
    cursor: Cursor = None


class BackjobBody(Body):
    """A request to redo a job. With `payer`, it is refused if the job has another one."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"job": "job-8", "by": "client-3", "reason": "it still leaks", "payer": "client-3"}]
        }
    )

    job: str
    by: By
    reason: Reason
    payer: str | None = None
    reference: Reference = None


class DecisionBody(Body):
    """Who decides, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "admin-1", "reason": "decided"}]})

    by: By
    reason: Reason
    reference: Reference = None


class ApprovalBody(DecisionBody):
    """An approval: of all that is held, of an amount, or of some holds."""

    amount: Amount | None = None
    hold_ids: Annotated[list[Id], Field(max_length=1000)] | None = None


@read(router, "/backjobs", answer=BackjobRecord, page=True)
def list_backjobs(call: Call, filters: Annotated[BackjobFilters, Query()]) -> Page[BackjobRecord]:
    """List backjobs, the newest first."""
    return list_backjobs_read(call.connection, **filters.facts())


@write(router, "/backjobs", answer=Backjob)
def request_backjob(call: Call, body: BackjobBody) -> Backjob:
    """Request a backjob before the release date: it freezes the holds of the job."""
    return request(call.connection, **body.facts(), now=call.now, policy=call.settings.policy)


@write(router, "/backjobs/{backjob_id}/approve", answer=Backjob)
def approve_backjob(call: Call, backjob_id: Id, body: ApprovalBody) -> Backjob:
    """Approve a backjob: the held money goes to the payer."""
    return approve(call.connection, backjob_id=backjob_id, **body.facts(), now=call.now)


@write(router, "/backjobs/{backjob_id}/reject", answer=Backjob)
def reject_backjob(call: Call, backjob_id: Id, body: DecisionBody) -> Backjob:
    """Reject a backjob: its holds return to the buffer, with the cooldown added."""
    return reject(
        call.connection, backjob_id=backjob_id, **body.facts(), now=call.now, policy=call.settings.policy
    )


@write(router, "/backjobs/{backjob_id}/withdraw", answer=Backjob)
def withdraw_backjob(call: Call, backjob_id: Id, body: DecisionBody) -> Backjob:
    """Withdraw a backjob: its holds return to the buffer with unchanged dates."""
    return withdraw(call.connection, backjob_id=backjob_id, **body.facts(), now=call.now)
