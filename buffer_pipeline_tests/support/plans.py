"""The server's plans, and enough holds to see a bad one."""

from collections.abc import Iterator, Mapping
from typing import Any

from buffer_pipeline.intake import Earning
from buffer_pipeline_tests.support.builders import NOON

HOLDS = 3_000


def earnings(first: int) -> list[Earning]:
    """Return 3,000 earnings, each of another worker."""
    return [
        Earning(
            reference=f"earning-{number}",
            job=f"job-{number}",
            payee=f"worker-{number}",
            payer="client-3",
            amount="10.00",
            currency="PHP",
            held_at=NOON,
        )
        for number in range(first, first + HOLDS)
    ]


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return a plan's nodes."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)
