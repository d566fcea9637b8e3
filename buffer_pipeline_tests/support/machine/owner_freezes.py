"""Rules that freeze and unfreeze owners."""

from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.owner_freeze import OwnerFreeze, freeze_owner, unfreeze_owner
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.drawn import KEYED
from buffer_pipeline_tests.support.machine.earning import EarningRules
from buffer_pipeline_tests.support.model.records import ModelOwnerFreeze


class OwnerFreezeRules(EarningRules):
    """Owners are frozen for a while: payees, payers, and unknown ones."""

    @rule(
        owner=st.sampled_from(["worker-3", "worker-3", "client-2", "worker-1", "platform-1", "stranger-1"]),
        kind=st.sampled_from([*[FreezeKind.ADMIN, FreezeKind.RISK] * 8, FreezeKind.BACKJOB]),
        # Mostly a possible call. An owner who stays frozen for long prevents most other verbs.
        contrary=st.sampled_from([*[False] * 5, True]),
        keyed=KEYED,
    )
    def freeze_or_unfreeze_owner(self, owner: str, kind: FreezeKind, contrary: bool, keyed: bool) -> None:
        if (self.model.frozen_owner(owner) is None) != contrary:
            self._freeze_owner(owner, kind, self._key(keyed))
        else:
            self._unfreeze_owner(owner, self._key(keyed))

    def _freeze_owner(
        self, owner: str, kind: FreezeKind, reference: str | None, *, reason: str = "a look"
    ) -> None:
        arguments: dict[str, Any] = {
            "owner": owner,
            "kind": kind,
            "by": ADMIN,
            "reason": reason,
            "reference": reference,
        }

        def model(got: OwnerFreeze | None) -> str:
            replayed = ("owner freeze", reference) in self.model.keys
            frozen_id = None if got is None else got.owner_freeze_id
            freeze = self.model.freeze_owner(
                **arguments,
                now=self.now,
                owner_freeze_id=frozen_id,
                freeze_ids={
                    seen.hold_id: freeze_id
                    for freeze_id, seen in self.seen.freezes.items()
                    if seen.owner_freeze_id == frozen_id
                },
            )
            _same_owner_freeze(got, freeze, frozen=True, replayed=replayed)
            self._reach("an owner with frozen holds is frozen", self._stacked(owner))
            again = partial(self._freeze_owner, owner, kind, reference)
            return self._keep("freeze_owner", reference, "replayed" if replayed else "done", again)

        self._call_both(
            "freeze_owner",
            self._committed(lambda connection: freeze_owner(connection, **arguments, now=self.now)),
            model,
        )

    def _unfreeze_owner(self, owner: str, reference: str | None, *, reason: str = "all is well") -> None:
        arguments: dict[str, Any] = {"owner": owner, "by": ADMIN, "reason": reason, "reference": reference}

        def model(got: OwnerFreeze | None) -> str:
            replayed = ("owner closing", reference) in self.model.keys
            stacked = self._stacked(owner)
            freeze = self.model.unfreeze_owner(**arguments, now=self.now)
            _same_owner_freeze(got, freeze, frozen=False, replayed=replayed)
            self._reach("an unfrozen owner has frozen holds", stacked)
            again = partial(self._unfreeze_owner, owner, reference)
            return self._keep("unfreeze_owner", reference, "replayed" if replayed else "done", again)

        self._call_both(
            "unfreeze_owner",
            self._committed(lambda connection: unfreeze_owner(connection, **arguments, now=self.now)),
            model,
        )

    def _stacked(self, owner: str) -> bool:
        return any(
            hold.owner == owner
            and hold.state is HoldState.FROZEN
            and sum(freeze.is_open for freeze in hold.freezes) > 1
            for hold in self.model.unsettled()
        )


def _same_owner_freeze(
    got: OwnerFreeze | None, freeze: ModelOwnerFreeze, *, frozen: bool, replayed: bool
) -> None:
    holds = freeze.holds_frozen if frozen else freeze.holds_resumed
    assert holds is not None
    assert got == OwnerFreeze(
        owner_freeze_id=freeze.owner_freeze_id,
        owner=freeze.owner,
        frozen=frozen,
        holds=holds,
        replayed=replayed,
    )
