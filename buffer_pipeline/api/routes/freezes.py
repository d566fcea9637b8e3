"""Freezes of holds and of owners."""

from typing import Final, Literal

from pydantic import ConfigDict

from buffer_pipeline.api.bodies import Body, By, Id, Reason, Reference
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.endpoint import write
from buffer_pipeline.freeze import Freeze
from buffer_pipeline.freeze import freeze_hold as freeze_hold_verb
from buffer_pipeline.freeze import unfreeze_hold as unfreeze_hold_verb
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import OwnerFreeze
from buffer_pipeline.owner_freeze import freeze_owner as freeze_owner_verb
from buffer_pipeline.owner_freeze import unfreeze_owner as unfreeze_owner_verb

router: Final = new_router("freezes")


class FreezeBody(Body):
    """Why a hold may not be released. The payee is told `payee_text`, and never the reason."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"kind": "RISK", "by": "risk-2", "reason": "card reported stolen", "reference": "case-12"}
            ]
        }
    )

    kind: Literal["ADMIN", "RISK"]
    by: By
    reason: Reason
    reference: Reference = None
    payee_text: str | None = None


class UnfreezeBody(Body):
    """Why a freeze is closed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"by": "risk-2", "reason": "cleared"}]})

    by: By
    reason: Reason
    reference: Reference = None


class OwnerFreezeBody(Body):
    """Whose holds may not be released, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"owner": "worker-17", "kind": "RISK", "by": "risk-2", "reason": "stolen account"}]
        }
    )

    owner: str
    kind: Literal["ADMIN", "RISK"]
    by: By
    reason: Reason
    reference: Reference = None
    payee_text: str | None = None


class OwnerUnfreezeBody(Body):
    """Who is not frozen any more, and why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"owner": "worker-17", "by": "risk-2", "reason": "cleared"}]}
    )

    owner: str
    by: By
    reason: Reason
    reference: Reference = None


@write(router, "/holds/{hold_id}/freeze", answer=Freeze)
def freeze_hold(call: Call, hold_id: Id, body: FreezeBody) -> Freeze:
    """Freeze a hold: it is not released until the freeze is closed."""
    facts = body.facts() | {"kind": FreezeKind(body.kind)}
    return freeze_hold_verb(call.connection, hold_id=hold_id, **facts, now=call.now)


@write(router, "/freezes/{freeze_id}/close", answer=Freeze)
def unfreeze_hold(call: Call, freeze_id: Id, body: UnfreezeBody) -> Freeze:
    """Close a freeze; if it is the last one of its hold, the hold returns to the buffer."""
    return unfreeze_hold_verb(call.connection, freeze_id=freeze_id, **body.facts(), now=call.now)


@write(router, "/owners/freeze", answer=OwnerFreeze)
def freeze_owner(call: Call, body: OwnerFreezeBody) -> OwnerFreeze:
    """Freeze an owner: all holds that wait for them, and each new one."""
    facts = body.facts() | {"kind": FreezeKind(body.kind)}
    return freeze_owner_verb(call.connection, **facts, now=call.now)


@write(router, "/owners/unfreeze", answer=OwnerFreeze)
def unfreeze_owner(call: Call, body: OwnerUnfreezeBody) -> OwnerFreeze:
    """Unfreeze an owner: holds that no other freeze covers return to the buffer."""
    return unfreeze_owner_verb(call.connection, **body.facts(), now=call.now)
