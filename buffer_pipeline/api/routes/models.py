"""Answers that no dataclass of the verbs and reads has."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from buffer_pipeline.api.documents import AmountText, TimeText, model_of
from buffer_pipeline.reads import Hold


class HoldExplanation(BaseModel):
    """Why a hold is where it is. `ways` are the payee's; those for operators are in their reasons."""

    model_config = ConfigDict(extra="forbid")

    hold: model_of(Hold)  # type: ignore[valid-type]
    at: TimeText
    released_at: TimeText | None
    reasons: list[dict[str, Any]]
    ways: list[str]


class Released(BaseModel):
    """What an early release did, by currency."""

    model_config = ConfigDict(extra="forbid")

    holds_released: int
    parts_released: int
    amounts: dict[str, AmountText]
    left: dict[str, AmountText]
    recovered: dict[str, AmountText]
    batch_id: int | None
    replayed: bool


class AuditLines(BaseModel):
    """Lines of the audit trail."""

    model_config = ConfigDict(extra="forbid")

    lines: list[dict[str, Any]]


class Rules(BaseModel):
    """The newest version of each rule."""

    model_config = ConfigDict(extra="forbid")

    rules: list[dict[str, Any]]


class TriedShares(BaseModel):
    """The shares that a rule makes of an amount."""

    model_config = ConfigDict(extra="forbid")

    rule: str
    version: int | None
    shares: list[dict[str, Any]]


class BatchOfPayouts(BaseModel):
    """A batch of payouts: who made, approved, sent or cancelled it, and the files written for it."""

    payout_batch_id: int
    currency: str
    method: str
    state: str
    payouts: int
    amount: AmountText
    exports: list[dict[str, Any]]
