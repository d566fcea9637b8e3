"""What must be in the books before each example of OpenAPI: made by the verbs, for owners of its own."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.database import database_clock
from buffer_pipeline.debts import ClawbackTo, claw_back
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.notifications.contact import set_contact
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import approve_payout_batch, make_payout_batch, request_payout, set_destination
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.release import release_early
from buffer_pipeline.rules import add_rule, assign_rule
from buffer_pipeline.wallet import deposit, withdraw

_IDS: Final = re.compile(r"(worker|client|job|case|movement|payout|marketplace)[-\w]*")
_DATE: Final = re.compile(r"20\d\d-\d\d-\d\dT00:00:00Z")
AT_ONCE: Final = PayoutPolicy(destination_wait_hours=0)


@dataclass(frozen=True)
class Story:
    """A connection, its clock, and the number that makes the ids of this story its own."""

    connection: Connection
    now: datetime
    number: int

    def own(self, value: Any) -> Any:
        """Return an example with the ids of this story, and a date that is still to come."""
        if isinstance(value, dict):
            return {name: self.own(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.own(item) for item in value]
        if isinstance(value, str) and _IDS.fullmatch(value):
            return f"{value}-{self.number}"
        if isinstance(value, str) and _DATE.fullmatch(value):
            return (self.now + timedelta(days=8)).isoformat()
        return value

    def text(self, value: str) -> str:
        """Return an id of this story."""
        return f"{value}-{self.number}"


Given = Callable[[Story], dict[str, Any]]
"""Makes what is needed, and returns the parameters of the path and the query."""


def nothing(_story: Story) -> dict[str, Any]:
    """Return no parameter."""
    return {}


def held(story: Story) -> dict[str, Any]:
    """Hold the earning of the examples."""
    added = add_pending_earnings(
        story.connection,
        reference=story.text("job-8-done"),
        job=story.text("job-8"),
        payee=story.text("worker-17"),
        payer=story.text("client-3"),
        amount="1250.50",
        currency="PHP",
        now=story.now,
    )
    return {"hold_id": added.hold_id}


def is_there(story: Story) -> dict[str, Any]:
    """Hold it, and need no parameter."""
    held(story)
    return {}


def by_reference(story: Story) -> dict[str, Any]:
    """Hold it, and name its reference."""
    held(story)
    return {"reference": story.text("job-8-done")}


def frozen(story: Story) -> dict[str, Any]:
    """Hold and freeze it."""
    found = held(story)
    freeze_hold(story.connection, **found, kind=FreezeKind.RISK, by="risk-2", reason="look", now=story.now)
    return found


def open_freeze(story: Story) -> dict[str, Any]:
    """Name the freeze of a frozen hold."""
    done = freeze_hold(
        story.connection, **held(story), kind=FreezeKind.RISK, by="risk-2", reason="look", now=story.now
    )
    return {"freeze_id": done.freeze_id}


def frozen_owner(story: Story) -> dict[str, Any]:
    """Freeze the payee."""
    held(story)
    freeze_owner(
        story.connection,
        owner=story.text("worker-17"),
        kind=FreezeKind.RISK,
        by="risk-2",
        reason="look",
        now=story.now,
    )
    return {}


def released(story: Story) -> dict[str, Any]:
    """Hold and release it."""
    found = held(story)
    payer = story.text("client-3")
    release_early(story.connection, **found, by=payer, reason="well done", now=story.now)
    return found


def backjob(story: Story) -> dict[str, Any]:
    """Request a backjob on its job."""
    held(story)
    asked = request_backjob(
        story.connection,
        job=story.text("job-8"),
        by=story.text("client-3"),
        reason="it leaks",
        now=story.now,
    )
    return {"backjob_id": asked.backjob_id}


def debt(story: Story) -> dict[str, Any]:
    """Take back more than the payee has left."""
    found = released(story)
    owner = story.text("worker-17")
    withdraw(
        story.connection,
        owner=owner,
        amount="1250.50",
        currency="PHP",
        reference=story.text("spent"),
        now=story.now,
    )
    taken = claw_back(
        story.connection,
        **found,
        amount="100",
        to=ClawbackTo.BANK,
        by="admin-1",
        reason="chargeback",
        reference=story.text("taken"),
        now=story.now,
    )
    return {"debt_id": taken.debt_ids[0]}


def money_and_debt(story: Story) -> dict[str, Any]:
    """Give an owner with a debt money to pay it."""
    debt(story)
    return money(story)


def money(story: Story) -> dict[str, Any]:
    """Put money in a balance."""
    deposit(
        story.connection,
        owner=story.text("worker-17"),
        amount="500",
        currency="PHP",
        reference=story.text("given"),
        now=story.now,
    )
    return {}


def destination(story: Story) -> dict[str, Any]:
    """Give an owner money and a destination."""
    owner = story.text("worker-17")
    money(story)
    set_destination(
        story.connection,
        owner=owner,
        method="TOKEN",
        account="acct_1NirD82eZvKYlo2C",
        by=owner,
        reason="first",
        now=story.now - timedelta(minutes=30),
    )
    return {"owner": owner}


def payable(story: Story) -> dict[str, Any]:
    """Give an owner money and a destination, and need no parameter."""
    destination(story)
    return {}


def payout(story: Story) -> dict[str, Any]:
    """Request a payout."""
    destination(story)
    owner = story.text("worker-17")
    asked = request_payout(
        story.connection,
        owner=owner,
        currency="PHP",
        amount="20",
        by=owner,
        reference=story.text("asked"),
        now=story.now,
        policy=AT_ONCE,
    )
    return {"payout_id": asked.payout_id}


def requested(story: Story) -> dict[str, Any]:
    """Request a payout, and need no parameter."""
    payout(story)
    return {}


def batch(story: Story) -> dict[str, Any]:
    """Make a batch of payouts."""
    payout(story)
    made = make_payout_batch(story.connection, currency="PHP", by="finance-1", now=story.now, policy=AT_ONCE)
    return {"payout_batch_id": made.payout_batch_id}


def approved_batch(story: Story) -> dict[str, Any]:
    """Make and approve a batch."""
    made = batch(story)
    approve_payout_batch(story.connection, **made, by="finance-3", now=story.now)
    return made


def rule(story: Story) -> dict[str, Any]:
    """Add a rule."""
    name = story.text("marketplace")
    add_rule(story.connection, name=name, by="admin-1", reason="new", days=5, now=story.now)
    return {"name": name}


def rule_is_there(story: Story) -> dict[str, Any]:
    """Add a rule, and need no parameter."""
    rule(story)
    return {}


def assigned(story: Story) -> dict[str, Any]:
    """Assign a rule."""
    owner = story.text("worker-17")
    name = rule(story)["name"]
    assign_rule(story.connection, owner=owner, name=name, by="admin-1", reason="new", now=story.now)
    return {}


def contact(story: Story) -> dict[str, Any]:
    """Set a contact."""
    owner = story.text("worker-17")
    set_contact(story.connection, owner=owner, locale="fil_PH", now=story.now)
    return {"owner": owner}


def payee(story: Story) -> dict[str, Any]:
    """Hold an earning, and name its payee."""
    held(story)
    return {"owner": story.text("worker-17")}


STORIES: Final[Mapping[str, Given]] = {
    "add_earning": nothing,
    "add_earnings": nothing,
    "list_holds": payee,
    "find_hold_by_reference": by_reference,
    "get_hold": held,
    "explain": held,
    "release_hold": held,
    "release_job": is_there,
    "reschedule_hold": held,
    "refund_hold": frozen,
    "claw_back": released,
    "list_audit_trail": is_there,
    "freeze_hold": held,
    "unfreeze_hold": open_freeze,
    "freeze_owner": is_there,
    "unfreeze_owner": frozen_owner,
    "list_backjobs": is_there,
    "request_backjob": is_there,
    "approve_backjob": backjob,
    "reject_backjob": backjob,
    "withdraw_backjob": backjob,
    "list_wallets": payee,
    "find_wallet": lambda story: {**payee(story), "currency": "PHP"},
    "statement": payee,
    "deposit": nothing,
    "withdraw": money,
    "get_contact": contact,
    "set_contact": nothing,
    "list_debts": lambda story: {"owner": debt(story) and story.text("worker-17")},
    "forgive_debt": debt,
    "recover_debts": money_and_debt,
    "list_payouts": requested,
    "request_payout": payable,
    "cancel_payout": payout,
    "show_destination": destination,
    "set_destination": nothing,
    "show_payout_schedule": payee,
    "set_payout_schedule": nothing,
    "make_batch": requested,
    "show_batch": batch,
    "approve_batch": batch,
    "send_batch": approved_batch,
    "cancel_batch": batch,
    "list_rules": rule_is_there,
    "show_rule": rule,
    "try_rule": lambda story: {**rule(story), "amount": "100.00", "currency": "PHP"},
    "make_rule": nothing,
    "retire": rule_is_there,
    "assign": rule_is_there,
    "unassign": assigned,
    "show_clock": nothing,
    "advance_clock": nothing,
}
"""The operations of OpenAPI, each with what its example needs."""


def story_of(connection: Connection, number: int) -> Story:
    """Return a story with ids of its own."""
    return Story(connection, database_clock(connection), number)
