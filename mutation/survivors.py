"""The mutants that may survive, each with the reason."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SURVIVORS: Final = Path(__file__).with_name("survivors.toml")


@dataclass(frozen=True, order=True)
class Change:
    """A mutant: the lines of a function that it changes."""

    module: str
    function: str
    was: str
    became: str

    def __str__(self) -> str:
        """Return the change as a diff."""
        lines = [f"- {line}" for line in self.was.splitlines()]
        lines += [f"+ {line}" for line in self.became.splitlines()]
        return "\n".join([f"{self.module}.{self.function}", *lines])


@dataclass(frozen=True)
class Reason:
    """Mutants, and why no test can or should kill them."""

    reason: str
    mutants: tuple[Change, ...]


def accepted_survivors() -> list[Reason]:
    """Return the list of survivors.toml."""
    listed = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))["accepted"]
    return [
        Reason(entry["reason"], tuple(Change(**mutant) for mutant in entry["mutants"])) for entry in listed
    ]
