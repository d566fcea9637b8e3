"""Hold rules of a simulated marketplace: two tiers of workers, and sellers who are new."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.rules import add_rule, assign_rule, unassign_rule

FEE_OWNER: Final = "platform"

_FEE: Final[dict[str, Any]] = {"fee_owner": FEE_OWNER, "fee_on_refund": "keep"}
_TAX: Final[dict[str, Any]] = {"tax_percent": "2", "tax_of": "gross", "tax_owner": "tax-office"}
_RULES: Final[dict[str, dict[str, Any]]] = {
    "marketplace": {"fee_percent": "12", **_FEE},
    "trusted": {
        "days": 3,
        "min_days": 1,
        "cooldown_hours": 12,
        "max_backjobs": 1,
        "fee_percent": "8",
        **_FEE,
        **_TAX,
    },
    "new-seller": {
        "fee_percent": "15",
        "fee_owner": FEE_OWNER,
        **_TAX,
        "reserve_percent": "10",
        "reserve_days": 30,
    },
}
_WHO: Final[dict[str, Any]] = {"by": "admin-1", "reason": "Terms of the marketplace"}
_TIERS: Final = ("", "trusted", "new-seller")
"""The rule of each third worker at first; "" is none of their own."""


class Terms:
    """The rules that the marketplace begins with, and how they and their owners change."""

    def begin(self, connection: Connection, *, now: datetime, workers: int) -> None:
        """Add the rules, and give them to the workers."""
        for name, terms in _RULES.items():
            add_rule(connection, name=name, **terms, **_WHO, now=now)
        for worker in range(1, workers + 1):
            if tier := _tier(worker):
                assign_rule(connection, owner=f"worker-{worker}", name=tier, **_WHO, now=now)

    def change(self, connection: Connection, *, now: datetime, worker: int) -> None:
        """A new seller becomes trusted, somebody trusted is no longer, or a rule gets another version."""
        tier = _tier(worker)
        if tier == "new-seller":
            assign_rule(connection, owner=f"worker-{worker}", name="trusted", **_WHO, now=now)
        elif tier == "trusted":
            unassign_rule(connection, owner=f"worker-{worker}", **_WHO, now=now)
        else:
            add_rule(connection, name="marketplace", **_RULES["marketplace"], **_WHO, now=now)


def _tier(worker: int) -> str:
    return _TIERS[worker % len(_TIERS)]
