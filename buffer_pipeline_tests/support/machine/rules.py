"""Rules that add, retire and assign hold rules."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import Connection

from buffer_pipeline.rules import STANDARD, add_rule, assign_rule, retire_rule, unassign_rule
from buffer_pipeline_tests.support.builders import ADMIN
from buffer_pipeline_tests.support.machine.comparing import ComparingMachine
from buffer_pipeline_tests.support.machine.drawn import RULES


class HoldRuleRules(ComparingMachine):
    """Hold rules are added and retired. Those that earnings name mostly exist."""

    def _begin(self) -> None:
        super()._begin()
        for name in RULES:
            if name != STANDARD:
                self._add_rule(name)
        self._retire_rule("retired")

    @rule(
        verb=st.sampled_from([*["add"] * 2, *["assign"] * 4, "unassign", "retire"]),
        name=st.sampled_from([*["marketplace", "trusted", "all kinds"] * 4, STANDARD]),
        owner=st.sampled_from(["worker-1", "worker-2", "worker-3", "client-2"]),
    )
    def change_a_hold_rule(self, verb: str, name: str, owner: str) -> None:
        who: dict[str, Any] = {"by": ADMIN, "reason": "terms", "now": self.now}
        book = self.model.rule_book
        if verb == "add":
            self._add_rule(name)
        elif verb == "assign":
            self._change(
                "assign_rule",
                lambda connection: assign_rule(connection, owner=owner, name=name, **who),
                lambda: book.assign(owner, name),
            )
        elif verb == "unassign":
            self._change(
                "unassign_rule",
                lambda connection: unassign_rule(connection, owner=owner, **who),
                lambda: book.unassign(owner),
            )
        else:
            self._retire_rule(name)

    def _retire_rule(self, name: str) -> None:
        self._change(
            "retire_rule",
            lambda connection: retire_rule(connection, name=name, by=ADMIN, reason="terms", now=self.now),
            lambda: self.model.rule_book.retire(name),
        )

    def _add_rule(self, name: str) -> None:
        self._change(
            "add_rule",
            lambda connection: add_rule(
                connection, name=name, **RULES[name], by=ADMIN, reason="terms", now=self.now
            ),
            lambda: self.model.rule_book.add(name, RULES[name]),
        )

    def _change(self, verb: str, real: Callable[[Connection], object], model: Callable[[], object]) -> None:
        def changed(_got: object) -> str:
            model()
            return "done"

        self._call_both(verb, self._committed(real), changed)
