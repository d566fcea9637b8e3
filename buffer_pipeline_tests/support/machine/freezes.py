"""Rules that freeze, unfreeze and refund holds."""

from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from buffer_pipeline.freeze import Freeze, freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.refund import Refund, refund_hold
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.comparing import there_are_holds
from buffer_pipeline_tests.support.machine.drawn import KEYED, PARTS, PICK, UNKNOWN_IDS, choose, part_text
from buffer_pipeline_tests.support.machine.earning import EarningRules
from buffer_pipeline_tests.support.model.records import ModelFreeze, ModelHold


class FreezeRules(EarningRules):
    """Holds are frozen and unfrozen, and frozen ones are refunded by an admin."""

    # ---- freezes

    @precondition(there_are_holds)
    @rule(
        kind=st.sampled_from([*[FreezeKind.ADMIN, FreezeKind.RISK] * 4, FreezeKind.BACKJOB]),
        which=st.sampled_from(
            [
                *["waiting"] * 4,
                *["frozen"] * 4,
                "divided",
                *["half settled"] * 2,
                "refunded",
                "any",
                "unknown",
            ]
        ),
        keyed=KEYED,
        pick=PICK,
    )
    def freeze(self, kind: FreezeKind, which: str, keyed: bool, pick: int) -> None:
        if not self.model.unsettled():
            self._new_job(pick)
        waiting = self.model.unsettled()
        frozen = [hold for hold in waiting if hold.state is HoldState.FROZEN]
        divided = [hold for hold in _firsts(waiting) if hold.settled is None]
        half_settled = [hold for hold in _firsts(waiting) if hold.settled is not None]
        pool = {
            "waiting": waiting,
            "frozen": frozen,
            "divided": divided,
            "half settled": half_settled or frozen,
            "refunded": self._refunded(),
        }
        hold_id = self._one_of(pool.get(which, []), pick).hold_id
        if which == "unknown":
            # One fault at a time, because no rule says which of two is reported first.
            hold_id, kind = choose(UNKNOWN_IDS, pick), FreezeKind.ADMIN
        self._freeze(hold_id, kind, self._key(keyed))

    def _freeze(
        self, hold_id: int, kind: FreezeKind, reference: str | None, *, reason: str = "a look"
    ) -> None:
        arguments: dict[str, Any] = {
            "hold_id": hold_id,
            "kind": kind,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: Freeze | None) -> str:
            replayed = ("freeze", reference) in self.model.keys
            freeze_id = None if got is None else got.freeze_id
            freezes = self.model.freeze_hold(
                **arguments,
                now=self.now,
                freeze_ids={
                    freeze.hold_id: seen_id
                    for seen_id, freeze in self.seen.freezes.items()
                    if freeze_id in (seen_id, freeze.earning_freeze_id)
                },
            )
            hold = self._same_freeze(got, freezes, replayed=replayed)
            self._reach("stacked freezes", sum(one.is_open for one in hold.freezes) > 1)
            if not replayed:
                self._reach("a freeze covers several shares", len(freezes) > 1)
                is_settled = self.model.holds[hold_id].settled is not None
                self._reach("a freeze covers what is left of an earning", is_settled)
            again = partial(self._freeze, hold_id, kind, reference)
            return self._keep("freeze_hold", reference, "replayed" if replayed else "done", again)

        self._call_both(
            "freeze_hold",
            self._committed(lambda connection: freeze_hold(connection, **arguments, now=self.now)),
            model,
        )

    def _same_freeze(self, got: Freeze | None, freezes: list[ModelFreeze], *, replayed: bool) -> ModelHold:
        """Compare, and return the first covered hold."""
        hold_ids = sorted(freeze.hold_id for freeze in freezes)
        first = self.model.holds[hold_ids[0]]
        assert got == Freeze(
            freeze_id=freezes[0].freeze_id,
            hold_id=freezes[0].earning_id or first.hold_id,
            state=first.state,
            hold_ids=tuple(hold_ids),
            replayed=replayed,
        )
        return first

    @precondition(there_are_holds)
    @rule(
        which=st.sampled_from([*["standing"] * 8, "an owner's", "an earning's", "any", "unknown"]),
        keyed=KEYED,
        pick=PICK,
    )
    def unfreeze(self, which: str, keyed: bool, pick: int) -> None:
        standing = [freeze for freeze in self.model.freezes.values() if freeze.is_open]
        of_owners = [freeze.freeze_id for freeze in standing if freeze.owner_freeze_id is not None]
        of_earnings = [freeze.freeze_id for freeze in standing if freeze.earning_freeze_id is not None]
        own = [
            freeze
            for freeze in standing
            if freeze.kind is not FreezeKind.BACKJOB and freeze.owner_freeze_id is None
        ]
        # Mostly one that prevents the approval of a backjob.
        beside = {freeze.hold_id for freeze in standing if freeze.kind is FreezeKind.BACKJOB}
        blocking = [freeze for freeze in own if freeze.hold_id in beside]
        pool = [
            freeze.earning_freeze_id or freeze.freeze_id
            for freeze in (blocking if blocking and pick % 4 else own)
        ]
        refused = {"an owner's": of_owners, "an earning's": of_earnings}.get(which)
        if refused:
            self._unfreeze(choose(refused, pick), self._key(keyed))
            return
        if not self.model.freezes or (not own and pick % 4 != 1):
            self.freeze(FreezeKind.RISK, "waiting", keyed, pick)
            return
        freeze_id = choose(pool if which == "standing" and pool else list(self.model.freezes), pick)
        if which == "unknown":
            freeze_id = choose(UNKNOWN_IDS, pick)
        self._unfreeze(freeze_id, self._key(keyed))

    def _unfreeze(self, freeze_id: int, reference: str | None, *, reason: str = "all is well") -> None:
        arguments: dict[str, Any] = {
            "freeze_id": freeze_id,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: Freeze | None) -> str:
            replayed = ("closing", reference) in self.model.keys
            freezes = self.model.unfreeze_hold(**arguments, now=self.now)
            self._same_freeze(got, freezes, replayed=replayed)
            if replayed:
                return "replayed"
            self._reach("a freeze of several shares is closed", len(freezes) > 1)
            frozen = any(self.model.holds[one.hold_id].state is HoldState.FROZEN for one in freezes)
            again = partial(self._unfreeze, freeze_id, reference)
            return self._keep(
                "unfreeze_hold", reference, "done, others are open" if frozen else "done", again
            )

        self._call_both(
            "unfreeze_hold",
            self._committed(lambda connection: unfreeze_hold(connection, **arguments, now=self.now)),
            model,
        )

    # ---- refunds by an admin

    @precondition(there_are_holds)
    @rule(
        which=st.sampled_from(
            [*["frozen"] * 6, *["divided"] * 4, "kept fee", "a backjob's", "waiting", "any", "unknown"]
        ),
        part=st.sampled_from(PARTS),
        used=st.sampled_from([*["no"] * 12, "a movement's", "a refund's"]),
        pick=PICK,
    )
    def refund(self, which: str, part: str, used: str, pick: int) -> None:
        """Mostly a hold frozen only by an ADMIN or RISK freeze."""
        waiting = self.model.unsettled()
        covered = [
            hold
            for hold in waiting
            if any(freeze.is_open and freeze.kind is FreezeKind.BACKJOB for freeze in hold.freezes)
        ]
        frozen = [hold for hold in waiting if hold.state is HoldState.FROZEN and hold not in covered]
        if which == "frozen" and not frozen:
            self.freeze(FreezeKind.RISK, "waiting", False, pick)
            return
        divided = [hold for hold in frozen if len(hold.earning.holds) > 1 and hold is hold.earning.first]
        kept = [hold for hold in frozen if hold.is_kept]
        pool = {
            "frozen": frozen,
            "divided": divided,
            "kept fee": kept,
            "a backjob's": covered,
            "waiting": waiting,
        }
        if which == "kept fee" and not kept:
            kept = pool[which] = [hold for hold in self._add_by_rule("marketplace") if hold.is_kept]
            for hold in kept:
                self._freeze(hold.hold_id, FreezeKind.RISK, None)
        if which == "divided" and not divided and _firsts(waiting):
            self._freeze(_firsts(waiting)[0].hold_id, FreezeKind.RISK, None)
            return
        hold = self._one_of(pool.get(which, []), pick)
        hold_id = choose(UNKNOWN_IDS, pick) if which == "unknown" else hold.hold_id
        held_minor = self.model.left_minor(hold.hold_id)
        amount = None if part == "whole" else part_text(part, held_minor, hold.intake.currency)
        others = {"a movement's": [*self.model.movements], "a refund's": [*self.model.refunds]}.get(used)
        reference = choose(others, pick) if others else f"reference-{self._movements() + 1}"
        self._refund(hold_id, amount, reference)

    def _refund(self, hold_id: int, amount: str | None, reference: str, *, reason: str = "a fraud") -> None:
        arguments: dict[str, Any] = {
            "hold_id": hold_id,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
            "amount": amount,
        }

        def model(got: Refund | None) -> str:
            replayed = reference in self.model.refunds
            refund = self.model.refund_hold(**arguments, now=self.now)
            left_minor = self.model.left_minor(hold_id)
            assert got is not None
            assert got == Refund(
                transaction_id=got.transaction_id,
                hold_id=hold_id,
                amount_minor=refund.amount_minor,
                left_minor=left_minor,
                state=self.model.holds[hold_id].state,
                hold_ids=refund.hold_ids,
                replayed=replayed,
            )
            if replayed:
                return "replayed"
            self._reach("several shares are refunded by an admin", len(refund.hold_ids) > 1)
            again = partial(self._refund, hold_id, amount, reference)
            return self._keep("refund_hold", reference, "done, in part" if left_minor else "done", again)

        self._call_both(
            "refund_hold",
            self._committed(lambda connection: refund_hold(connection, **arguments, now=self.now)),
            model,
        )


def _firsts(waiting: list[ModelHold]) -> list[ModelHold]:
    """Return the own holds of divided earnings with unsettled shares."""
    firsts = {hold.earning.first.hold_id: hold.earning.first for hold in waiting}
    return [first for first in firsts.values() if len(first.earning.holds) > 1]
