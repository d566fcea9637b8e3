"""Import what waits in the Django app: its payments, its open backjobs and its balances."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection

from buffer_pipeline.currencies import bring_in, coming_in, places_of
from buffer_pipeline.database import Row, fetch
from buffer_pipeline.errors import Refused
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import UNSETTLED, BackjobState, FreezeKind, HoldState
from buffer_pipeline.inputs import require_time
from buffer_pipeline.intake import AddedHold, add_many_pending_earnings
from buffer_pipeline.legacy.export import (
    LegacyExport,
    OpenDispute,
    Quarantined,
    WaitingPayment,
    read_export,
)
from buffer_pipeline.locks import lock_holds, lock_job
from buffer_pipeline.money import format_amount
from buffer_pipeline.wallet import open_balance

IMPORTER: Final = "legacy-import"
"""Who opens the ADMIN freezes of an import."""
_CHUNK: Final = 1000
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class LegacyImport:
    """What of an export is in the books after an import, and how much of it this import added.

    `wallets` counts the wallets whose balance was imported, `holds` the waiting payments that became holds
    (whatever happened to them since), and `frozen` those of these holds that are frozen now. These three are
    the same after a second import. `quarantined` is in the order of the files: wallets, transactions,
    disputes.
    """

    wallets: int
    holds: int
    frozen: int
    wallets_added: int
    holds_added: int
    frozen_added: int
    quarantined: tuple[Quarantined, ...]


def import_legacy(
    connection: Connection,
    directory: Path,
    *,
    now: datetime,
    currency: str = "PHP",
    strict: bool = False,
) -> LegacyImport:
    """Import an export in the caller's transaction, without notifications.

    Waiting payments become holds with their referenceNumber as reference. Open disputes become backjobs
    (`legacy-dispute-<disputeID>`) that freeze their job's holds, whatever their release date. Balances become
    opening transactions (`legacy-wallet-<walletID>`). Inconsistent rows are left out and listed.

    Safe to run again: what was imported before is left as it is now. Stop the legacy command before the
    export, because what it moves afterwards is not imported.

    Raises:
        InvalidInput: the directory, a file, a column or the currency is wrong.
        Refused: `strict`, and something is inconsistent; nothing was written.
    """
    require_time("now", now)
    places = coming_in(places_of(connection), currency)
    export = read_export(directory, currency=currency, places=places)
    with connection.begin_nested():
        fetch(connection, "legacy/lock_import")
        result = _Import(connection, export, now=now, currency=currency, places=places).run()
        if strict and result.quarantined:
            first, count = result.quarantined[0], len(result.quarantined)
            raise Refused(
                f"{directory}: {count} inconsistent row{'s' if count > 1 else ''}, nothing was imported;"
                f" the first is {first.row}: {first.reason}"
            )
    return result


class _Import:
    """The state of one import."""

    def __init__(
        self, connection: Connection, export: LegacyExport, *, now: datetime, currency: str, places: int
    ) -> None:
        self.connection = connection
        self.export = export
        self.now = now
        self.currency = currency
        self.places = places
        self.quarantined = list(export.quarantined)
        self.holds: dict[WaitingPayment, AddedHold] = {}
        self.frozen_ids: set[int] = set()

    def run(self) -> LegacyImport:
        in_books = self._holds_in_books(payment.earning.reference for payment in self.export.payments)
        disputes, payments = self._importable(in_books)
        # Before the holds, because adding a hold also makes its owner's wallet.
        wallets_added = self._open_empty_wallets()
        self._add_holds(payments)
        self._freeze_admin_holds()
        self._open_backjobs(disputes)
        opened, replayed = self._open_balances()
        holds_now = self._holds_in_books(hold.reference for hold in self.holds.values())
        empty = sum(balance.balance_minor == 0 for balance in self.export.balances)
        place = {name: place for place, name in reversed(list(enumerate(self.export.rows)))}
        return LegacyImport(
            wallets=empty + opened + replayed,
            holds=len(self.holds),
            frozen=sum(row["state"] == HoldState.FROZEN for row in holds_now.values()),
            wallets_added=wallets_added + opened,
            holds_added=sum(not hold.replayed for hold in self.holds.values()),
            frozen_added=len(self.frozen_ids),
            quarantined=tuple(sorted(self.quarantined, key=lambda entry: place[entry.row])),
        )

    def _quarantine(self, row: str, reason: object) -> None:
        self.quarantined.append(Quarantined(row=row, reason=str(reason)))

    def _holds_in_books(self, references: Iterable[str]) -> dict[str, Row]:
        """Return those of the holds that are in the books, by reference."""
        return {
            row["reference"]: row
            for chunk in _chunks(references)
            for row in fetch(self.connection, "intake/find_holds", references=chunk)
        }

    def _importable(self, in_books: dict[str, Row]) -> tuple[list[OpenDispute], list[WaitingPayment]]:
        """Return the disputes that are new to the books and the payments that may be added.

        A new payment of a job whose backjob is in the books already is left out, because the export does
        not say whether the dispute is about this payment too.
        """
        disputed = {dispute.job for dispute in self.export.disputes}
        # Lock jobs before their holds, as every verb does. The jobs of the other payments are locked later,
        # in the file's order. That may deadlock with a platform that already runs: run the import again.
        for job in sorted(disputed):
            lock_job(self.connection, job)
        hold_ids = [row["hold_id"] for row in in_books.values() if row["job"] in disputed]
        lock_holds(self.connection, hold_ids=hold_ids)
        disputes = []
        backjob_of_job: dict[str, int] = {}
        for dispute in self.export.disputes:
            came_over = fetch(
                self.connection,
                "backjob/find_backjob",
                backjob_id=None,
                reference=_backjob_reference(dispute),
                decision_reference=None,
            )
            still_open = [
                row
                for row in fetch(self.connection, "backjob/backjobs_of_job", job=dispute.job)
                if row["state"] == BackjobState.OPEN
            ]
            if came_over:
                backjob_of_job[dispute.job] = came_over[0]["backjob_id"]
            elif still_open:
                backjob_of_job[dispute.job] = still_open[0]["backjob_id"]
                self._quarantine(
                    dispute.row, f"backjob {still_open[0]['backjob_id']} of job {dispute.job} is open already"
                )
            else:
                disputes.append(dispute)
        payments = []
        for payment in self.export.payments:
            backjob_id = backjob_of_job.get(payment.earning.job)
            if backjob_id is not None and payment.earning.reference not in in_books:
                self._quarantine(
                    payment.row,
                    f"backjob {backjob_id} of job {payment.earning.job} is in the books and does not cover"
                    " it",
                )
            else:
                payments.append(payment)
        return disputes, payments

    def _add_holds(self, payments: list[WaitingPayment]) -> None:
        for chunk in _chunks(payments):
            outcomes = add_many_pending_earnings(
                self.connection, [payment.earning for payment in chunk], now=self.now, notify=False
            )
            for payment, outcome in zip(chunk, outcomes, strict=True):
                if isinstance(outcome, Refused):
                    self._quarantine(payment.row, outcome)
                else:
                    self.holds[payment] = outcome

    def _freeze_admin_holds(self) -> None:
        for payment, hold in self.holds.items():
            if payment.admin_hold and not hold.replayed:
                freeze_hold(
                    self.connection,
                    hold_id=hold.hold_id,
                    kind=FreezeKind.ADMIN,
                    by=IMPORTER,
                    reason="ADMIN_HOLD in the legacy app",
                    now=self.now,
                    notify=False,
                )
                self.frozen_ids.add(hold.hold_id)

    def _open_backjobs(self, disputes: list[OpenDispute]) -> None:
        jobs = {payment.earning.job for payment in self.holds}
        for dispute in disputes:
            if dispute.job not in jobs:
                self._quarantine(dispute.row, f"job {dispute.job} has no waiting payment that was imported")
                continue
            lock_job(self.connection, dispute.job)
            holds = lock_holds(self.connection, job=dispute.job)
            unsettled = [hold for hold in holds if hold["state"] in UNSETTLED]
            if not unsettled:
                self._quarantine(dispute.row, f"the payments of job {dispute.job} are settled by now")
                continue
            fetch(
                self.connection,
                "backjob/open_backjob",
                reference=_backjob_reference(dispute),
                job=dispute.job,
                requested_by=dispute.requested_by,
                reason=dispute.reason,
                requested_at=dispute.requested_at,
                hold_ids=[hold["hold_id"] for hold in unsettled],
                now=self.now,
                notify=False,
            )
            self.frozen_ids.update(
                hold["hold_id"] for hold in unsettled if hold["state"] == HoldState.BUFFERED
            )

    def _open_empty_wallets(self) -> int:
        owners = [balance.owner for balance in self.export.balances if balance.balance_minor == 0]
        currencies = [self.currency] * len(owners)
        if owners:
            bring_in(self.connection, {self.currency: self.places}, known={})
        return len(fetch(self.connection, "wallet/ensure_wallets", owners=owners, currencies=currencies))

    def _open_balances(self) -> tuple[int, int]:
        """Return how many balances were imported now, and how many before."""
        opened = replayed = 0
        for balance in self.export.balances:
            if balance.balance_minor == 0:
                continue
            try:
                movement = open_balance(
                    self.connection,
                    owner=balance.owner,
                    amount=format_amount(balance.balance_minor, self.places),
                    currency=self.currency,
                    reference=f"legacy-wallet-{balance.wallet_id}",
                    now=self.now,
                )
            except Refused as refusal:
                self._quarantine(balance.row, refusal)
                continue
            replayed += movement.replayed
            opened += not movement.replayed
        return opened, replayed


def _backjob_reference(dispute: OpenDispute) -> str:
    return f"legacy-dispute-{dispute.dispute_id}"


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
