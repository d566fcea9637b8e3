"""The work of admins after a release: claw-backs, debts, and what releases then pay."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.debts import ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.errors import Refused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.release import release_early
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, place_hold
from buffer_pipeline_tests.support.read_rows import all_debts

OWES = "worker-owes"


def money_is_taken_back(platform: Engine) -> None:
    """Take back for a payer and a bank, recover, and forgive a debt, each twice. Leave two debts open."""
    with platform.begin() as connection:
        who: dict[str, Any] = {"by": ADMIN, "now": NOON}
        parties: dict[str, Any] = {"payee": OWES, "payer": "client-owed"}
        holds = {
            to: place_hold(connection, state=HoldState.RELEASED, job=f"job-back-{to}", **parties)
            for to in ClawbackTo
        }
        withdraw(connection, owner=OWES, amount=1800, currency="PHP", reference="owes-out", now=NOON)
        for to, hold_id in holds.items():
            taken: dict[str, Any] = {"amount": 1000, "to": to, "reason": "fraud", "reference": f"back-{to}"}
            for _ in ("first", "again"):
                claw_back(connection, hold_id=hold_id, **taken, **who)
        deposit(connection, owner=OWES, amount=100, currency="PHP", reference="owes-in", now=NOON)
        for _ in ("first", "again"):
            recover_debts(connection, owner=OWES, reference="recover-1", **who)
        deposit(connection, owner="shop-owed", amount=1000, currency="PHP", reference="owed-in", now=NOON)
        hold_id = place_hold(connection, job="job-forgiven", payee="worker-poor", state=HoldState.RELEASED)
        withdraw(connection, owner="worker-poor", amount=1000, currency="PHP", reference="poor", now=NOON)
        done = claw_back(
            connection,
            hold_id=hold_id,
            amount=1000,
            to=ClawbackTo.PAYER,
            reason="fraud",
            reference="back-poor",
            advanced_by="shop-owed",
            **who,
        )
        for _ in ("first", "again"):
            forgive_debt(connection, debt_id=done.debt_ids[0], reason="poor", reference="forgive-1", **who)
        with pytest.raises(Refused), connection.begin_nested():
            forgive_debt(connection, debt_id=done.debt_ids[0], reason="poor", **who)
        early = place_hold(connection, job="job-early-debt", amount="10.00", **parties)
        for _ in ("first", "again"):
            release_early(
                connection,
                hold_id=early,
                by="client-owed",
                reason="well done",
                reference="early-1",
                now=NOON,
            )
        # For the releases: the first is due before all others.
        for number, release_date in enumerate((NOON, NOON + timedelta(days=7))):
            place_hold(
                connection,
                job=f"job-pays-{number}",
                amount="50.00",
                held_at=NOON,
                release_date=release_date,
                **parties,
            )


def debts_are_read(connection: Connection) -> None:
    """List them."""
    assert {row["creditor"] for row in all_debts(connection, owner=OWES)} == {"client-owed", None}
