"""Rules that release holds early, or parts of them."""

from collections import Counter
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from buffer_pipeline.hold import HoldState
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import ReleaseBatch, release_early
from buffer_pipeline.shares import ShareKind
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.comparing import there_are_holds
from buffer_pipeline_tests.support.machine.drawn import KEYED, PARTS, PICK, UNKNOWN_IDS, choose, part_text
from buffer_pipeline_tests.support.machine.earning import EarningRules
from buffer_pipeline_tests.support.model.records import ModelHold

MIN_DAYS: Final = st.sampled_from([0] * 6 + [2])


class EarlyRules(EarningRules):
    """Holds are released early, whole or in part."""

    @precondition(there_are_holds)
    @rule(
        what=st.sampled_from([*["hold"] * 5, *["job"] * 3, "unknown hold", "unknown job"]),
        by=st.sampled_from([*["payer"] * 3, *["admin"] * 2, "payee", "stranger"]),
        which=st.sampled_from([*["waiting"] * 6, "reserve", "refunded", "left of a refund", "any"]),
        min_days=MIN_DAYS,
        keyed=KEYED,
        pick=PICK,
    )
    def release_early(self, what: str, by: str, which: str, min_days: int, keyed: bool, pick: int) -> None:
        if not self.model.unsettled():
            self._new_job(pick)
        waiting = self.model.unsettled()
        reserves = [hold for hold in waiting if hold.kind is ShareKind.RESERVE]
        left = [hold for hold in waiting if hold.refunded_minor and hold.state is HoldState.BUFFERED]
        pool = {
            "waiting": waiting,
            "reserve": reserves,
            "refunded": self._refunded(),
            "left of a refund": left,
        }
        hold = self._one_of(pool.get(which, []), pick)
        owner = {"payer": hold.intake.payer, "payee": hold.owner, "admin": ADMIN}.get(by, "stranger-1")
        names: dict[str, dict[str, Any]] = {
            "hold": {"hold_id": hold.hold_id},
            "job": {"job": hold.intake.job},
            "unknown hold": {"hold_id": choose(UNKNOWN_IDS, pick)},
            "unknown job": {"job": "job-404"},
        }
        self._release_early(
            names[what], owner, as_admin=by == "admin", min_days=min_days, reference=self._key(keyed)
        )

    @precondition(there_are_holds)
    @rule(
        part=st.sampled_from([part for part in PARTS if part != "whole"]),
        by=st.sampled_from([*["payer"] * 3, *["admin"] * 3, "payee"]),
        which=st.sampled_from([*["buffered"] * 5, *["divided"] * 3, "frozen", "reserve", "any"]),
        min_days=MIN_DAYS,
        keyed=st.sampled_from([True] * 12 + [False]),
        pick=PICK,
    )
    def release_part(self, part: str, by: str, which: str, min_days: int, keyed: bool, pick: int) -> None:
        """Mostly of a waiting hold; for an earning with shares, by its own hold or by a share's."""
        if not self.model.unsettled():
            self._new_job(pick)
        waiting = self.model.unsettled()
        buffered = [hold for hold in waiting if hold.state is HoldState.BUFFERED]
        pool = {
            "buffered": buffered,
            "frozen": [hold for hold in waiting if hold.state is HoldState.FROZEN],
            "divided": self._divided(buffered),
            "reserve": [hold for hold in waiting if hold.kind is ShareKind.RESERVE],
        }
        hold = self._one_of(pool.get(which, []), pick)
        owner = {"payer": hold.intake.payer, "payee": hold.owner, "admin": ADMIN}[by]
        takes_from = self.model.takes_from(hold.hold_id, self.model.named(hold.hold_id, None))
        held_minor = sum(one.held_minor for one in takes_from)
        self._release_early(
            {"hold_id": hold.hold_id, "amount": part_text(part, held_minor, hold.intake.currency)},
            owner,
            as_admin=by == "admin",
            min_days=min_days,
            reference=self._key(keyed),
        )

    def _divided(self, buffered: list[ModelHold]) -> list[ModelHold]:
        """Return first holds of earnings with several shares that can give a part; large ones if there are
        any.
        """
        several = [
            hold
            for hold in buffered
            if hold is hold.earning.first and len(self.model.takes_from(hold.hold_id, hold.earning.holds)) > 1
        ]
        return [hold for hold in several if hold.held_minor > 50] or several

    def _release_early(
        self,
        named: dict[str, Any],
        by: str,
        *,
        as_admin: bool,
        min_days: int,
        reference: str | None,
        reason: str = "well done",
    ) -> None:
        arguments: dict[str, Any] = {
            **named,
            "by": by,
            "reason": reason,
            "as_admin": as_admin,
            "reference": reference,
        }
        verb = "release_part" if "amount" in named else "release_early"

        def model(got: ReleaseBatch | None) -> str:
            replayed = reference in self.model.early
            done = self.model.release_early(**arguments, now=self.now, min_days=min_days)
            assert got is not None
            released = [self.model.holds[hold_id] for hold_id in done.given]
            amounts_minor: Counter[str] = Counter()
            for hold in released:
                amounts_minor[hold.intake.currency] += done.given[hold.hold_id]
            left_minor: Counter[str] = Counter()
            hold_id = named.get("hold_id")
            takes_from = self.model.takes_from(hold_id, self.model.named(hold_id, named.get("job")))
            for hold in {*released, *takes_from} if not replayed else takes_from:
                if hold.held_minor:
                    left_minor[hold.intake.currency] += hold.held_minor
            assert (
                got.holds_released,
                got.parts_released,
                got.amounts_minor,
                got.left_minor,
                got.replayed,
            ) == (len(done.given) - len(done.parts), len(done.parts), amounts_minor, left_minor, replayed)
            if replayed:
                return "replayed"
            self._reach("a part is refunded, the rest released", any(one.refunded_minor for one in released))
            self._reach("a job with several holds is released early", len(released) > 1 and not done.parts)
            shares = [share for one in released for share in one.earning.holds]
            reserved = any(one.kind is ShareKind.RESERVE and one.settled is None for one in shares)
            self._reach("an early release leaves a reserve", reserved)
            self._reach("a reserve is released early", any(one.kind is ShareKind.RESERVE for one in released))
            self._reach("a part of several shares is released", len(done.parts) > 1)
            self._reach("a share is all given, another in part", 0 < len(done.parts) < len(done.given))
            again = partial(
                self._release_early, named, by, as_admin=as_admin, min_days=min_days, reference=reference
            )
            return self._keep(verb, reference, "done, in part" if done.parts else "done", again)

        self._call_both(
            verb,
            self._committed(
                lambda connection: release_early(
                    connection, **arguments, now=self.now, policy=Policy(min_days=min_days)
                )
            ),
            model,
        )
