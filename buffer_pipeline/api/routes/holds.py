"""Holds: find, list, explain, release early, reschedule, refund, take back."""

from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import ConfigDict, Field

from buffer_pipeline.api.bodies import Amount, Body, By, Filters, Id, Reason, Reference, Time
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.documents import InCurrency, time_text
from buffer_pipeline.api.endpoint import read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.models import AuditLines, HoldExplanation, Released
from buffer_pipeline.debts import Clawback, ClawbackTo
from buffer_pipeline.debts import claw_back as claw_back_verb
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.explain import explain_hold
from buffer_pipeline.explain.words import payee_reasons, payee_ways, reason_words, way_words
from buffer_pipeline.reads import Hold, Page, find_hold
from buffer_pipeline.reads import list_holds as list_holds_read
from buffer_pipeline.refund import Refund
from buffer_pipeline.refund import refund_hold as refund_hold_verb
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.reschedule import Rescheduled
from buffer_pipeline.reschedule import reschedule_hold as reschedule_hold_verb

router: Final = new_router("holds")

Limit = Annotated[int, Field(ge=1, le=1000)]
Cursor = Annotated[
    str | None, Field(description="The next_cursor of the page before, with the same filters.")
]


class HoldFilters(Filters):
    """Which holds to list; all that is given must match."""

    owner: str | None = None
    role: Literal["PAYEE", "PAYER"] = "PAYEE"
    job: str | None = None
    state: Literal["BUFFERED", "FROZEN", "RELEASED", "REFUNDED"] | None = None
    kind: Literal["PAYEE", "FEE", "TAX", "RESERVE"] | None = None
    due_by: Time | None = None
    held_since: Time | None = None
    held_before: Time | None = None
    metadata: list[str] = Field(default=[], description="`key=value`, once for each key.")
    oldest_first: bool = False
    limit: Limit = 10
    cursor: Cursor = None


class ReferenceFilter(Filters):
    """The reference of an earning."""

    reference: str


class ReaderFilter(Filters):
    """Who reads the explanation: `payee` gets only what the payee may read."""

    reader: Literal["operator", "payee"] = "operator"


class AuditFilters(Filters):
    """Which lines of the audit trail to list."""

    owner: str | None = None
    hold_id: Id | None = None
    by: str | None = None
    since: Time | None = None
    limit: Limit = 100


class ReleaseBody(Body):
    """An early release. Without `as_admin`, `by` must be the payer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "client-3", "reason": "well done"}]})

    by: By
    reason: Reason
    amount: Amount | None = None
    as_admin: bool = False
    reference: Reference = None


class JobReleaseBody(Body):
    """An early release of all unsettled holds of a job."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"job": "job-8", "by": "client-3", "reason": "well done"}]}
    )

    job: str
    by: By
    reason: Reason
    as_admin: bool = False
    reference: Reference = None


class RescheduleBody(Body):
    """A move of the release date; to a later one only with `as_admin`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "to": "2026-12-24T00:00:00Z",
                    "by": "admin-1",
                    "reason": "the client is on leave",
                    "as_admin": True,
                }
            ]
        }
    )

    to: Time
    by: By
    reason: Reason
    as_admin: bool = False
    reference: Reference = None


class RefundBody(Body):
    """A refund of a frozen hold, or of a part of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"by": "admin-1", "reason": "stolen card", "reference": "case-12-refund"}]
        }
    )

    by: By
    reason: Reason
    reference: str
    amount: Amount | None = None


class ClawBackBody(Body):
    """What to take back of what a hold has released, and for whom."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "amount": "100.00",
                    "to": "PAYER",
                    "by": "admin-1",
                    "reason": "work not done",
                    "reference": "case-13",
                }
            ]
        }
    )

    amount: Amount
    to: Literal["PAYER", "BANK"]
    by: By
    reason: Reason
    reference: str
    advanced_by: str | None = None


@read(router, "/holds", answer=Hold, page=True)
def list_holds(call: Call, filters: Annotated[HoldFilters, Query()]) -> Page[Hold]:
    """List holds, the newest first."""
    facts = filters.facts()
    pairs = [text.partition("=") for text in facts.pop("metadata", [])]
    if any(not separator for _, separator, _ in pairs):
        raise InvalidInput("metadata: needs key=value")
    metadata = {key: value for key, _, value in pairs} or None
    return list_holds_read(call.connection, **facts, metadata=metadata)


@read(router, "/holds/by-reference", answer=Hold, etag=True)
def find_hold_by_reference(call: Call, filters: Annotated[ReferenceFilter, Query()]) -> Hold:
    """Find the own hold of the earning with a reference."""
    return find_hold(call.connection, reference=filters.reference)


@read(router, "/holds/{hold_id}", answer=Hold, etag=True)
def get_hold(call: Call, hold_id: Id) -> Hold:
    """Find a hold by its id."""
    return find_hold(call.connection, hold_id=hold_id)


@read(router, "/holds/{hold_id}/explanation", answer=HoldExplanation)
def explain(call: Call, hold_id: Id, filters: Annotated[ReaderFilter, Query()]) -> dict[str, Any]:
    """Explain why a hold is held, or what became of it, and what would release it earlier."""
    found = explain_hold(call.connection, hold_id=hold_id, now=call.now, policy=call.settings.policy)
    currency = {"currency": found.hold.currency, "places": found.hold.places}
    if filters.reader == "payee":
        reasons = payee_reasons(found, moment=time_text)
        ways: list[str] = payee_ways(found, moment=time_text)
    else:
        ways = []
        reasons = []
        for reason in found.reasons:
            row = {name: value for name, value in asdict(reason).items() if value is not None}
            row["text"] = reason_words(found, reason, moment=time_text)
            row["ways"] = [{**asdict(way), "text": way_words(way, moment=time_text)} for way in reason.ways]
            reasons.append(row | currency)
    return {
        "hold": found.hold,
        "at": found.at,
        "released_at": found.released_at,
        "reasons": reasons,
        "ways": ways,
    }


@write(router, "/holds/{hold_id}/release", answer=Released)
def release_hold(call: Call, hold_id: Id, body: ReleaseBody) -> ReleaseBatch:
    """Release a hold, or a part of it, before its release date."""
    return release_early(
        call.connection, hold_id=hold_id, **body.facts(), now=call.now, policy=call.settings.policy
    )


@write(router, "/jobs/release", answer=Released)
def release_job(call: Call, body: JobReleaseBody) -> ReleaseBatch:
    """Release all unsettled holds of a job before their release dates."""
    return release_early(call.connection, **body.facts(), now=call.now, policy=call.settings.policy)


@write(router, "/holds/{hold_id}/reschedule", answer=Rescheduled)
def reschedule_hold(call: Call, hold_id: Id, body: RescheduleBody) -> Rescheduled:
    """Move the release date of a hold; the window for a backjob ends at the new date."""
    return reschedule_hold_verb(
        call.connection, hold_id=hold_id, **body.facts(), now=call.now, policy=call.settings.policy
    )


@write(router, "/holds/{hold_id}/refund", answer=Refund, with_currency=True)
def refund_hold(call: Call, hold_id: Id, body: RefundBody) -> InCurrency:
    """Refund a frozen hold to its payer, without a backjob."""
    done = refund_hold_verb(call.connection, hold_id=hold_id, **body.facts(), now=call.now)
    return InCurrency(done, find_hold(call.connection, hold_id=done.hold_id).currency)


@write(router, "/holds/{hold_id}/claw-back", answer=Clawback)
def claw_back(call: Call, hold_id: Id, body: ClawBackBody) -> Clawback:
    """Take back what a hold has released; what the balance does not cover becomes a debt of the payee."""
    facts = body.facts() | {"to": ClawbackTo(body.to)}
    return claw_back_verb(call.connection, hold_id=hold_id, **facts, now=call.now)


@read(router, "/audit", answer=AuditLines)
def list_audit_trail(call: Call, filters: Annotated[AuditFilters, Query()]) -> dict[str, Any]:
    """List who did what and why, the newest first."""
    return {"lines": audit_trail(call.connection, **filters.facts())}
