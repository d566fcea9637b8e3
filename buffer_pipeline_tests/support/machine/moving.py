"""Rules that move release dates."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from buffer_pipeline.hold import HoldState
from buffer_pipeline.reschedule import Rescheduled, reschedule_hold
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.comparing import there_are_holds
from buffer_pipeline_tests.support.machine.drawn import KEYED, PICK, TICK, UNKNOWN_IDS, choose
from buffer_pipeline_tests.support.machine.earning import EarningRules
from buffer_pipeline_tests.support.model.records import ModelHold
from buffer_pipeline_tests.support.model.verbs import MOVED_AT_MOST

PLACES: Final = (*["earlier"] * 4, *["later"] * 4, "now", "before now", "the cap", "beyond it", "the same")


class MoveRules(EarningRules):
    """Payers and admins move release dates."""

    @precondition(there_are_holds)
    @rule(
        place=st.sampled_from(PLACES),
        by=st.sampled_from([*["payer"] * 3, *["admin"] * 4, "payee"]),
        which=st.sampled_from([*["waiting"] * 6, *["frozen"] * 3, "trusted", "any", "unknown"]),
        hours=st.integers(1, 60),
        keyed=KEYED,
        pick=PICK,
    )
    def reschedule(self, place: str, by: str, which: str, hours: int, keyed: bool, pick: int) -> None:
        if not self.model.unsettled():
            self._new_job(pick)
        waiting = self.model.unsettled()
        frozen = [hold for hold in waiting if hold.state is HoldState.FROZEN]
        if which == "trusted":
            # Few holds have minimum days, and most of these are older.
            hold = self._one_of(self._add_by_rule("trusted"), pick)
            self._reschedule(hold.hold_id, self.now, "client-1", as_admin=False, reference=None)
            return
        hold = self._one_of({"waiting": waiting, "frozen": frozen}.get(which, []), pick)
        hold_id = choose(UNKNOWN_IDS, pick) if which == "unknown" else hold.hold_id
        owner = {"payer": hold.intake.payer, "payee": hold.intake.payee, "admin": ADMIN}[by]
        self._reschedule(
            hold_id, self._date(hold, place, hours), owner, as_admin=by == "admin", reference=self._key(keyed)
        )

    def _date(self, hold: ModelHold, place: str, hours: int) -> datetime:
        cap = hold.original_release_date + MOVED_AT_MOST
        return {
            "earlier": max(self.now, hold.release_date - timedelta(hours=hours)),
            "later": hold.release_date + timedelta(hours=hours),
            "now": self.now,
            "before now": self.now - TICK,
            "the cap": cap,
            "beyond it": max(cap, hold.release_date) + TICK,
            "the same": hold.release_date,
        }[place]

    def _reschedule(
        self,
        hold_id: int,
        to: datetime,
        by: str,
        *,
        as_admin: bool,
        reference: str | None,
        reason: str = "as agreed",
    ) -> None:
        arguments: dict[str, Any] = {
            "hold_id": hold_id,
            "to": to,
            "by": by,
            "reason": reason,
            "as_admin": as_admin,
            "reference": reference,
        }
        hold = self.model.find_hold(hold_id)
        was = None if hold is None else hold.release_date

        def model(got: Rescheduled | None) -> str:
            replayed = ("move", reference) in self.model.keys
            moved = self.model.reschedule_hold(**arguments, now=self.now)
            assert got is not None
            assert (got.hold_id, got.release_date, got.replayed) == (hold_id, to, replayed)
            assert got.hold_ids == tuple(share.hold_id for share in moved)
            if replayed:
                return "replayed"
            assert got.was == was
            waiting = [share for share in moved[0].earning.holds if share.settled is None]
            self._reach("a frozen hold is moved", moved[0].state is HoldState.FROZEN)
            self._reach("a move takes shares along", len(moved) > 1)
            self._reach("a move leaves a share on its date", 1 < len(moved) < len(waiting))
            again = partial(self._reschedule, hold_id, to, by, as_admin=as_admin, reference=reference)
            return self._keep("reschedule_hold", reference, "done, later" if to > got.was else "done", again)

        self._call_both(
            "reschedule_hold",
            self._committed(lambda connection: reschedule_hold(connection, **arguments, now=self.now)),
            model,
        )
