"""Raw SQL on claw-backs and debts: refused, or `reconcile` names the rows. A releaser only recovers."""

from typing import Final

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.databases import Books
from buffer_pipeline_tests.support.debts import put_in, recover_now, take_back, take_out

# The debt is of PAYEE to PAYER, who have balances, and its claw-back made only this debt.
LINE: Final = (
    "INSERT INTO buffer.transaction (type, from_account, from_wallet_id, to_account, to_wallet_id, currency,"
    " amount_minor, balance_after_minor, from_balance_after_minor, hold_id, batch_id, debt_id, recorded_at)"
    " SELECT '{type}', {source}, {target}, 'PHP', 100, {balances}, {hold}, batch_id, {debt}, recorded_at"
    " FROM buffer.batch WHERE batch_id = {batch}"
)
DEBTOR: Final = f"(SELECT wallet_id FROM buffer.wallet WHERE owner = '{PAYEE}')"
CREDITOR: Final = f"(SELECT wallet_id FROM buffer.wallet WHERE owner = '{PAYER}')"
OTHER: Final = "(SELECT wallet_id FROM buffer.wallet WHERE owner = 'worker-18')"
DEBT: Final = "(SELECT min(debt_id) FROM buffer.debt)"
CLAWBACK: Final = "(SELECT min(clawback_id) FROM buffer.debt)"
HOLD: Final = "(SELECT min(hold_id) FROM buffer.debt)"
DUE: Final = "(SELECT max(batch_id) FROM buffer.batch WHERE kind = 'EARLY')"


def line(
    type_: str,
    *,
    source: str,
    target: str,
    batch: str,
    balances: str = "1, 1",
    hold: str = "NULL",
    debt: str = "NULL",
) -> str:
    """Return the statement that adds a transaction."""
    return LINE.format(
        type=type_, source=source, target=target, balances=balances, hold=hold, debt=debt, batch=batch
    )


FROM_DEBTOR: Final = f"'BALANCE', {DEBTOR}"
TO_CREDITOR: Final = f"'BALANCE', {CREDITOR}"
OUT: Final = "'EXTERNAL', NULL"

OF_A_RELEASER: Final = {
    "money out, as a claw-back": (
        line("CLAWBACK", source=FROM_DEBTOR, target=TO_CREDITOR, batch=CLAWBACK, hold=HOLD),
        "23503",
    ),
    "money out, as an advance": (
        line(
            "ADVANCE",
            source=TO_CREDITOR,
            target=OUT,
            batch=CLAWBACK,
            balances="1, NULL",
            hold=HOLD,
            debt=DEBT,
        ),
        "23503",
    ),
    "a loss": (
        line(
            "WRITE_OFF", source="'LOSS', NULL", target=TO_CREDITOR, batch=DUE, balances="1, NULL", debt=DEBT
        ),
        "23503",
    ),
    "a recovery for somebody else": (
        line("RECOVERY", source=FROM_DEBTOR, target=f"'BALANCE', {OTHER}", batch=DUE, debt=DEBT),
        "23503",
    ),
    "a recovery from somebody else": (
        line("RECOVERY", source=f"'BALANCE', {OTHER}", target=TO_CREDITOR, batch=DUE, debt=DEBT),
        "23503",
    ),
    "a recovery in the name of a claw-back": (
        line("RECOVERY", source=FROM_DEBTOR, target=TO_CREDITOR, batch=CLAWBACK, debt=DEBT),
        "23503",
    ),
    "a recovery without a debt": (
        line("RECOVERY", source=FROM_DEBTOR, target=TO_CREDITOR, batch=DUE),
        "23514",
    ),
    "a recovery that moves nothing": (
        line("RECOVERY", source=FROM_DEBTOR, target=TO_CREDITOR, batch=DUE, debt=DEBT),
        {"wallet_equals_its_transactions", "balance_after_follows", "debt_equals_its_transactions"},
    ),
    "a larger debt": (f"UPDATE buffer.debt SET outstanding_minor = 60000 WHERE debt_id = {DEBT}", "42501"),
    "a debt that nobody has paid": (
        f"UPDATE buffer.debt SET outstanding_minor = 0, closed_at = now() WHERE debt_id = {DEBT}",
        {"debt_equals_its_transactions", "wallet_names_its_debts"},
    ),
    "a debt that is not named": (
        f"UPDATE buffer.wallet SET debt_minor = 0 WHERE wallet_id = {DEBTOR}",
        {"wallet_names_its_debts"},
    ),
    "another debtor": (f"UPDATE buffer.debt SET wallet_id = {OTHER}", "42501"),
    "a forgiven debt": ("UPDATE buffer.debt SET forgiven_id = 1", "42501"),
    "a share": ("INSERT INTO buffer.clawback_share VALUES (1, 1, 1)", "42501"),
}

OF_A_PLATFORM: Final = {
    "a share of a claw-back that took nothing": (
        f"INSERT INTO buffer.clawback_share (clawback_id, hold_id, amount_minor)"
        f" SELECT {CLAWBACK}, max(hold_id), 200000 FROM buffer.hold",
        {"claw_back_equals_its_shares", "hold_gave_back_no_more_than_it_earned"},
    ),
    "a changed share": ("UPDATE buffer.clawback_share SET amount_minor = 1", "42501"),
    "a claw-back of nothing": (
        "INSERT INTO buffer.batch (kind, source, reason, reference, named_hold_id, paid_to, recorded_at)"
        f" VALUES ('CLAWBACK', 'x', 'x', 'x', {HOLD}, 'BANK', now())",
        {"claw_back_equals_its_shares"},
    ),
    "a claw-back without its key": (
        "INSERT INTO buffer.batch (kind, source, reason, named_hold_id, paid_to, recorded_at)"
        f" VALUES ('CLAWBACK', 'x', 'x', {HOLD}, 'BANK', now())",
        "23514",
    ),
    "a debt out of nothing": (
        "INSERT INTO buffer.debt (clawback_id, hold_id, wallet_id, currency, amount_minor, outstanding_minor,"
        f" opened_at) SELECT 1, {HOLD}, {DEBTOR}, 'PHP', 5, 5, now()",
        {
            "debt_equals_its_transactions",
            "wallet_names_its_debts",
            "claw_back_equals_its_shares",
            "receivable_equals_debts_to_banks",
        },
    ),
    "a debt of another owner": (
        "INSERT INTO buffer.debt (clawback_id, hold_id, wallet_id, currency, amount_minor, outstanding_minor,"
        f" opened_at) SELECT 1, {HOLD}, {OTHER}, 'PHP', 5, 5, now()",
        "23503",
    ),
    "a claw-back to somebody else": (
        line("CLAWBACK", source=FROM_DEBTOR, target=f"'BALANCE', {OTHER}", batch=CLAWBACK, hold=HOLD),
        "23503",
    ),
    "a deleted debt": ("DELETE FROM buffer.debt", "42501"),
}


@pytest.mark.parametrize(("role", "attempts"), [("releaser", OF_A_RELEASER), ("platform", OF_A_PLATFORM)])
def test_raw_sql_on_debts_is_refused_or_reported(
    roles: Books, role: str, attempts: dict[str, tuple[str, object]]
) -> None:
    """By exactly the expected privilege, CHECK, trigger or invariant."""
    with roles.platform.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.RELEASED)
        place_hold(connection, state=HoldState.RELEASED, payee="worker-18", job="job-18")
        take_out(connection, "1000.00")
        take_back(connection, hold_id, "500.00")
        put_in(connection, "100.00")
        recover_now(connection)
        put_in(connection, "10.00")
        assert reconcile(connection) == []
    found: dict[str, object] = {}
    for name, (statement, _) in attempts.items():
        with roles.of(role).connect() as connection:
            try:
                connection.execute(text(statement))
            except DBAPIError as error:
                found[name] = getattr(error.orig, "sqlstate", None)
                continue
            found[name] = {violation.invariant for violation in reconcile(connection)}
            connection.rollback()

    assert found == {name: expected for name, (_, expected) in attempts.items()}
