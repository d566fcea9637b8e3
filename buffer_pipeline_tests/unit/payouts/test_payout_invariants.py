"""The invariants of payouts name what raw SQL has broken."""

import pytest
from sqlalchemy import Engine

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.audit.seals import seal
from buffer_pipeline.payouts import PayoutState
from buffer_pipeline_tests.support.payouts import place_payout
from buffer_pipeline_tests.support.runs import corrupt
from buffer_pipeline_tests.support.seals import verified


@pytest.mark.parametrize(
    ("state", "change", "broken"),
    [
        (
            PayoutState.REQUESTED,
            "UPDATE buffer.payout SET amount_minor = amount_minor + 1",
            ["transit_equals_open_payouts", "payout_equals_its_transactions"],
        ),
        (
            PayoutState.SENT,
            "UPDATE buffer.payout SET state = 'PAID', paid_at = now()",
            ["transit_equals_open_payouts", "payout_equals_its_transactions"],
        ),
        (
            PayoutState.BATCHED,
            "UPDATE buffer.payout SET state = 'SENT', sent_at = now()",
            ["payout_batch_equals_its_payouts"],
        ),
        (
            PayoutState.RETURNED,
            "UPDATE buffer.payout SET paid_at = now()",
            ["payout_equals_its_transactions"],
        ),
        (
            PayoutState.SENT,
            "UPDATE buffer.payout_batch SET payouts = 2",
            ["payout_batch_equals_its_payouts"],
        ),
        (
            PayoutState.SENT,
            "UPDATE buffer.payout_destination SET owner = 'worker-18'",
            ["payout_batch_equals_its_payouts"],
        ),
        (
            PayoutState.PAID,
            "DELETE FROM buffer.transaction WHERE type = 'PAYOUT_PAID'",
            ["transit_equals_open_payouts", "payout_equals_its_transactions"],
        ),
    ],
)
def test_broken_payout_is_named(
    engine: Engine, superuser_url: str, state: PayoutState, change: str, broken: list[str]
) -> None:
    """By each invariant that it breaks."""
    with engine.begin() as connection:
        place_payout(connection, state)
        assert reconcile(connection) == []
    corrupt(superuser_url, change)

    with engine.begin() as connection:
        found = [violation.invariant for violation in reconcile(connection)]

    assert [name for name in found if name in broken] == broken
    assert set(found) <= {*broken, "books_balance"}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE buffer.transaction SET payout_id = payout_id + 1 WHERE type = 'PAYOUT_RETURNED'",
        "UPDATE buffer.transaction SET payout_id = NULL, type = 'WITHDRAWAL', to_account = 'EXTERNAL',"
        " reference = 'x' WHERE type = 'PAYOUT'",
        "UPDATE buffer.transaction SET amount_minor = 1 WHERE type = 'PAYOUT_RETURNED'",
    ],
)
def test_altered_line_of_a_payout_is_named(engine: Engine, superuser_url: str, change: str) -> None:
    """The seals have the lines of payouts, with the payout that each names."""
    with engine.begin() as connection:
        place_payout(connection, PayoutState.RETURNED)
    anchor = seal(engine).anchor
    assert verified(engine, anchor).offence is None

    corrupt(superuser_url, change)

    assert str(verified(engine, anchor).offence).endswith("it is not what was sealed")
