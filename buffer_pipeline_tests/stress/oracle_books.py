"""The books of the oracle, and changes that several verbs share."""

from collections.abc import Iterable
from datetime import datetime

from buffer_pipeline.hold import NEXT_STATE, BackjobState, HoldState, Verb
from buffer_pipeline_tests.stress.oracle_rows import FreezeName, Line, OracleBackjob, OracleHold, OracleWallet
from buffer_pipeline_tests.stress.record import Attempt
from buffer_pipeline_tests.support.model.backjobs import MAX_BACKJOBS


class Wrong(Exception):
    """An impossible answer, with what the oracle knows about it."""


class OracleBooks:
    """The expected books. `lines` are those not yet compared with the books."""

    def __init__(self) -> None:
        self.holds: dict[int, OracleHold] = {}
        self.by_reference: dict[str, OracleHold] = {}
        self.by_job: dict[str, list[OracleHold]] = {}
        self.wallets: dict[tuple[str, str], OracleWallet] = {}
        self.backjobs: dict[int, OracleBackjob] = {}
        self.backjobs_of: dict[str, list[OracleBackjob]] = {}
        self.freezes: dict[int, int] = {}
        """freeze_id -> hold_id of all ADMIN and RISK freezes, open or closed."""
        self.movements: dict[str, tuple[tuple[object, ...], int]] = {}
        """reference -> its content, and its transaction's id."""
        self.payers: dict[str, str] = {}
        """The first payer of each job."""
        self.keys: dict[tuple[str, str], tuple[tuple[object, ...], object]] = {}
        """(kind of verb, reference) -> its content, and the resulting id, amount or date."""
        self.lines: set[Line] = set()

    # ---- queries

    def wallet(self, owner: str, currency: str) -> OracleWallet:
        """Return a wallet, or an empty one."""
        return self.wallets.setdefault((owner, currency), OracleWallet())

    def unsettled(self, job: str) -> list[OracleHold]:
        """Return the unsettled holds of a job, by id."""
        return [hold for hold in self.by_job.get(job, ()) if hold.held_minor]

    def open_backjob(self, job: str) -> OracleBackjob | None:
        """Return the job's open backjob."""
        of_job = self.backjobs_of.get(job, ())
        return next((backjob for backjob in of_job if backjob.state is BackjobState.OPEN), None)

    def has_enough_rejected(self, job: str) -> bool:
        """Return True if the job may have no further backjob."""
        states = [backjob.state for backjob in self.backjobs_of.get(job, ())]
        return states.count(BackjobState.REJECTED) >= MAX_BACKJOBS

    def due(self, moment: datetime) -> list[OracleHold]:
        """Return what a release must find: buffered holds whose release date is reached."""
        return [
            hold
            for hold in self.holds.values()
            if hold.state is HoldState.BUFFERED and hold.release_date <= moment
        ]

    def messages(self) -> list[tuple[int, str, int]]:
        """Return the expected number of payment messages of each type for each hold."""
        messages = [(hold_id, "PAYMENT_PENDING", 1) for hold_id in self.holds]
        messages += [
            (hold.hold_id, "PAYMENT_RELEASED", hold.parts + (hold.state is HoldState.RELEASED))
            for hold in self.holds.values()
            if hold.parts or hold.state is HoldState.RELEASED
        ]
        # The payee and the payer are notified.
        return messages + [
            (hold.hold_id, "PAYMENT_REFUNDED", 2 * hold.refunds)
            for hold in self.holds.values()
            if hold.refunds
        ]

    def came_in_meanwhile(self, hold_ids: Iterable[int | None], attempt: Attempt) -> bool:
        """Return True if a transaction may have missed these holds, because they were committed after it
        began.
        """
        holds = [self.holds.get(hold_id or 0) for hold_id in hold_ids]
        return all(hold is not None and hold.added_by.ended >= attempt.began for hold in holds)

    # ---- changes

    def _go(self, hold: OracleHold, verb: Verb) -> None:
        if (hold.state, verb) not in NEXT_STATE:
            raise Wrong(f"{verb} from {hold.state}: {hold}")
        hold.state = NEXT_STATE[hold.state, verb]

    def _put_on(self, hold: OracleHold, name: FreezeName, now: datetime) -> None:
        self._go(hold, Verb.FREEZE)
        hold.opened_at[name] = now
        hold.freezes.add(name)

    def _take_off(self, hold: OracleHold, name: FreezeName) -> None:
        if name not in hold.freezes:
            raise Wrong(f"{name} is not open on {hold}")
        hold.freezes.discard(name)
        if not hold.freezes:
            self._go(hold, Verb.RESUME)

    def _write(
        self,
        type_: str,
        from_owner: str | None,
        to_owner: str,
        hold: OracleHold,
        amount_minor: int,
        recorded_at: datetime,
        release_date: datetime | None = None,
        backjob_id: int | None = None,
        reference: str | None = None,
    ) -> None:
        self.lines.add(
            Line(
                type=type_,
                from_owner=from_owner,
                to_owner=to_owner,
                currency=hold.earning.currency,
                amount_minor=amount_minor,
                recorded_at=recorded_at,
                hold_id=hold.hold_id,
                backjob_id=backjob_id,
                reference=reference,
                release_date=release_date,
            )
        )
