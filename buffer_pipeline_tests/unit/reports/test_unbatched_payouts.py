"""The payouts that no batch takes, with what keeps them."""

from datetime import timedelta

from sqlalchemy import Connection

from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import make_payout_batch
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.reports.payouts import unbatched_payouts
from buffer_pipeline_tests.support.builders import ADMIN, NOON
from buffer_pipeline_tests.support.debts import place_released, take_back
from buffer_pipeline_tests.support.payouts import MAKER, payable, request, to_iban

POLICY = PayoutPolicy()
DAY_8 = NOON + timedelta(days=8)


def freeze(connection: Connection, owner: str) -> None:
    """Freeze an owner two days after NOON."""
    later = NOON + timedelta(days=2)
    freeze_owner(connection, owner=owner, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=later)


def owe(connection: Connection, owner: str) -> None:
    """Give an owner a debt two days after NOON."""
    hold_id = place_released(connection, payee=owner, job=f"job-{owner}", spent="1900.00")
    take_back(connection, hold_id, "250.00", reference=f"taken-{owner}", now=NOON + timedelta(days=2))


def requested(connection: Connection) -> dict[str, int]:
    """Request payouts of eight owners, and let something keep six of them; return their ids by owner."""
    owners = ("free", "frozen", "indebted", "moved", "passed", "passed-moved", "passed-frozen", "passed-debt")
    ids = {}
    for owner in owners:
        payable(connection, owner)
        override = {"override": True, "reason": "checked", "by": ADMIN} if "passed" in owner else {}
        ids[owner] = request(connection, owner, **override).payout_id
    for owner in ("frozen", "passed-frozen"):
        freeze(connection, owner)
    for owner in ("indebted", "passed-debt"):
        owe(connection, owner)
    for owner in ("moved", "passed-moved"):
        to_iban(connection, owner, now=DAY_8 - timedelta(hours=1))
    return ids


def test_each_payout_says_what_keeps_it(connection: Connection) -> None:
    """A freeze, a debt, a new destination, or that no batch is made. An override passes what was before."""
    ids = requested(connection)

    rows = unbatched_payouts(connection, now=DAY_8, policy=POLICY)

    assert {row["payout_id"]: row["why"] for row in rows} == {
        ids["free"]: "NOT_MADE",
        ids["frozen"]: "FROZEN",
        ids["indebted"]: "INDEBTED",
        ids["moved"]: "NEW_DESTINATION",
        ids["passed"]: "NOT_MADE",
        ids["passed-moved"]: "NEW_DESTINATION",
        ids["passed-frozen"]: "FROZEN",
        ids["passed-debt"]: "INDEBTED",
    }
    assert {(row["owner"], row["method"], row["amount_minor"], row["since"]) for row in rows} == {
        (owner, "IBAN", 10_000, NOON) for owner in ids
    }


def test_a_batch_takes_what_only_lacks_one(connection: Connection) -> None:
    """And none of the others, so the reasons are those of a batch."""
    ids = requested(connection)

    made = make_payout_batch(connection, currency="PHP", by=MAKER, now=DAY_8)

    assert made.payouts == 2
    left = unbatched_payouts(connection, now=DAY_8, policy=POLICY)
    assert {row["payout_id"] for row in left} == set(ids.values()) - {ids["free"], ids["passed"]}
    assert "NOT_MADE" not in {row["why"] for row in left}


def test_the_setting_says_how_long(connection: Connection) -> None:
    """The longest first; one that was requested later is not listed yet."""
    payable(connection)
    late = request(connection, now=NOON + timedelta(hours=1)).payout_id
    first = request(connection, now=NOON).payout_id

    week, eight_days, nine_days = (
        unbatched_payouts(connection, now=DAY_8, policy=PayoutPolicy(batch_days=days)) for days in (7, 8, 9)
    )

    assert [row["payout_id"] for row in week] == [first, late]
    assert [row["payout_id"] for row in eight_days] == [first]
    assert nine_days == []
