"""Earnings: hold one, or many."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from buffer_pipeline.api.bodies import Amount, Body, Percent, Time
from buffer_pipeline.api.books import Call
from buffer_pipeline.api.documents import InCurrency, model_of
from buffer_pipeline.api.endpoint import NOT_FOR_OPERATORS, write
from buffer_pipeline.api.endpoint import router as new_router
from buffer_pipeline.api.problems import problem_of
from buffer_pipeline.errors import Refused
from buffer_pipeline.hold_metadata import MetadataValue
from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.shares import Share, ShareKind

router: Final = new_router("earnings")

EARNINGS_MAX: Final = 5_000
"""In one request, which is one transaction."""


class ShareBody(Body):
    """A share of an earning."""

    kind: Literal["PAYEE", "FEE", "TAX", "RESERVE"]
    owner: str | None = None
    amount: Amount | None = None
    percent: Percent | None = None
    release_date: Time | None = None
    days: int | None = None


class EarningBody(Body):
    """What a payer pays for one piece of work."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "reference": "job-8-done",
                    "job": "job-8",
                    "payee": "worker-17",
                    "payer": "client-3",
                    "amount": "1250.50",
                    "currency": "PHP",
                    "title": "Fix kitchen faucet",
                }
            ]
        }
    )

    reference: str
    job: str
    payee: str
    payer: str
    amount: Amount
    currency: str
    title: str = ""
    held_at: Time | None = None
    release_date: Time | None = None
    shares: list[ShareBody] = Field(default=[])
    rule: str | None = None
    metadata: dict[str, MetadataValue] | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the fields as arguments of the verb."""
        shares = [Share(**{**share.facts(), "kind": ShareKind(share.kind)}) for share in self.shares]
        return {**self.facts(), "shares": shares}


class EarningsBody(Body):
    """Many earnings. Each is held or refused on its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "earnings": [
                        {
                            "reference": "job-9-done",
                            "job": "job-9",
                            "payee": "worker-17",
                            "payer": "client-3",
                            "amount": "100.00",
                            "currency": "PHP",
                        }
                    ]
                }
            ]
        }
    )

    earnings: Annotated[list[EarningBody], Field(min_length=1, max_length=EARNINGS_MAX)]


class Outcome(BaseModel):
    """What became of one of many earnings: `hold`, or a `refusal`, which is a problem."""

    model_config = ConfigDict(extra="forbid")

    reference: str
    hold: model_of(AddedHold, with_currency=True) | None  # type: ignore[valid-type]
    refusal: dict[str, Any] | None


class Outcomes(BaseModel):
    """The outcomes of many earnings, in the order of the request."""

    model_config = ConfigDict(extra="forbid")

    outcomes: list[Outcome]


@write(router, "/earnings", answer=AddedHold, not_for=NOT_FOR_OPERATORS, with_currency=True)
def add_earning(call: Call, body: EarningBody) -> InCurrency:
    """Hold an earning until its release date."""
    added = add_pending_earnings(
        call.connection, **body.arguments(), now=call.now, policy=call.settings.policy
    )
    return InCurrency(added, body.currency)


@write(router, "/earnings/many", answer=Outcomes, not_for=NOT_FOR_OPERATORS)
def add_earnings(call: Call, body: EarningsBody) -> dict[str, Any]:
    """Hold many earnings in one transaction; those that are refused do not keep the others from being held.

    At most 5,000 in 10 MiB.
    """
    found = add_many_pending_earnings(
        call.connection,
        [Earning(**earning.arguments()) for earning in body.earnings],
        now=call.now,
        policy=call.settings.policy,
    )
    outcomes = [
        {
            "reference": earning.reference,
            "hold": None if isinstance(outcome, Refused) else InCurrency(outcome, earning.currency),
            "refusal": problem_of(outcome).document() if isinstance(outcome, Refused) else None,
        }
        for earning, outcome in zip(body.earnings, found, strict=True)
    ]
    return {"outcomes": outcomes}
