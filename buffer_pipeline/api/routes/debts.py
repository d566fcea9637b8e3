"""Debts: what owners owe after money was taken back."""

from typing import Annotated, Final

from fastapi import Query
from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Body, By, Filters, Id, Reason, Reference
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import read, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.routes.holds import Cursor, Limit
from buffer_pipeline.debts import DebtRecovery, Forgiven
from buffer_pipeline.debts import forgive_debt as forgive
from buffer_pipeline.debts import recover_debts as recover
from buffer_pipeline.reads import Debt, Page
from buffer_pipeline.reads import list_debts as list_debts_read

router: Final = new_router("debts")


class DebtFilters(Filters):
    """Which debts to list."""

    owner: str | None = None
    only_open: bool = False
    oldest_first: bool = False
    limit: Limit = 10
    cursor: Cursor = None


class ForgiveBody(Body):
    """Who forgives, and why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "admin-1", "reason": "our mistake"}]})

    by: By
    reason: Reason
    reference: Reference = None


class RecoverBody(Body):
    """Whose debts are paid from the balance."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"owner": "worker-17", "by": "admin-1"}]})

    owner: str
    by: By
    reason: str | None = None
    reference: Reference = None


@read(router, "/debts", answer=Debt, page=True)
def list_debts(call: Call, filters: Annotated[DebtFilters, Query()]) -> Page[Debt]:
    """List debts, the newest first."""
    return list_debts_read(call.connection, **filters.facts())


@write(router, "/debts/{debt_id}/forgive", answer=Forgiven)
def forgive_debt(call: Call, debt_id: Id, body: ForgiveBody) -> Forgiven:
    """Write off what is outstanding of a debt."""
    return forgive(call.connection, debt_id=debt_id, **body.facts(), now=call.now)


@write(router, "/debts/recover", answer=DebtRecovery)
def recover_debts(call: Call, body: RecoverBody) -> DebtRecovery:
    """Pay an owner's debts from their balance now, the oldest debt first."""
    return recover(call.connection, **body.facts(), now=call.now)
