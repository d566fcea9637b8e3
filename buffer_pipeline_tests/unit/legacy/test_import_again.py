"""A later export is imported into books that already have data."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Connection

from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import wallet_of
from buffer_pipeline_tests.support.legacy import TAKEN_AT
from buffer_pipeline_tests.support.legacy_import import (
    NOTHING_NEW,
    WAITING,
    WHOLE,
    account_of_wallet,
    edit,
    found,
    last_completed_row,
    run_import,
    total,
)


def test_reference_of_another_hold_is_quarantined(connection: Connection) -> None:
    """A reference that another payment in the books has is not overwritten."""
    taken = add_pending_earnings(
        connection,
        reference="JOB-209-PENDING-finish",
        job="209",
        payee="somebody",
        payer="somebody-else",
        amount="3773.32",
        currency="PHP",
        now=TAKEN_AT,
    )

    done = run_import(connection)

    reason = (
        f"reference 'JOB-209-PENDING-finish': already used for hold {taken.hold_id} with payee 'somebody',"
        f" not payee '{account_of_wallet('47')}'"
    )
    assert found(done) == {f"{WAITING} 447": reason}
    assert (done.wallets, done.holds, done.frozen) == (65, 65, 5)


def test_balance_of_a_later_export_is_not_added_to_the_first(connection: Connection, export: Path) -> None:
    """A balance is imported once. A different one in a later export is quarantined."""
    run_import(connection)
    edit(export, "accounts_wallet 1", balance="129606.66")
    edit(export, f"{WAITING} {last_completed_row('1')}", balanceAfter="129606.66")

    done = run_import(connection, export)

    assert list(found(done)) == ["accounts_wallet 1"]
    assert found(done)["accounts_wallet 1"].startswith(
        "reference 'legacy-wallet-1': already used for transaction"
    )
    assert done == replace(NOTHING_NEW, wallets=64, quarantined=done.quarantined)
    assert wallet_of(connection, "41").balance_minor == 12_960_665


def test_wallet_that_has_money_here_keeps_it(connection: Connection) -> None:
    """The imported balance is added to the money that the owner has in the books."""
    deposit(connection, owner="41", amount="10.00", currency="PHP", reference="top-up", now=TAKEN_AT)

    done = run_import(connection)

    assert done == WHOLE
    assert wallet_of(connection, "41").balance_minor == 12_961_665


def test_corrected_export_imports_the_rest(connection: Connection, export: Path) -> None:
    """Quarantined rows are imported once the export is correct. The rest exists already."""
    edit(export, f"{WAITING} 447", relatedJobPosting_id="")
    edit(export, "accounts_wallet 1", balance="-1.00")
    run_import(connection, export)

    done = run_import(connection)

    assert done == replace(NOTHING_NEW, wallets_added=1, holds_added=1)
    assert total(connection) == Decimal("5000000.00")
