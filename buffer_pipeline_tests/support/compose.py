"""docker-compose.yml and the Dockerfile, parsed as Compose and Docker do."""

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any, Final

import yaml

from buffer_pipeline_tests.support.paths import ROOT

VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^${}]*)\}")
"""A variable with a default for unset or empty values. No other form is used."""


def read_compose(**variables: str) -> dict[str, Any]:
    """Return docker-compose.yml with its variables filled in, word by word."""

    def value(found: re.Match[str]) -> str:
        return variables.get(found["name"]) or found["default"]

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: filled(each) for name, each in node.items()}
        if isinstance(node, list):
            return [filled(each) for each in node]
        if not isinstance(node, str):
            return node
        # The default of a variable may contain a variable.
        while (more := VARIABLE.sub(value, node)) != node:
            node = more
        return node.replace("$$", "$")

    document: dict[str, Any] = filled(
        yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    )
    return document


def seconds(duration: str) -> float:
    """Return a duration, for example 1m30s, in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def size_bytes(size: str) -> int:
    """Return a size, for example 128m, in bytes."""
    return int(size[:-1]) * {"m": 2**20, "g": 2**30}[size[-1]]


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile: its instructions in order, with unchanged arguments."""

    instructions: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of each instruction of this kind."""
        return [arguments for name, arguments in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        """Return the arguments of the last instruction of this kind, which overrides the others."""
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of ENV."""
        return dict(word.split("=", 1) for line in self.all("ENV") for word in shlex.split(line))

    @property
    def entrypoint(self) -> list[str]:
        """The words before each command."""
        words: list[str] = json.loads(self.last("ENTRYPOINT"))
        return words

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """Source and target of what is copied from the repository."""
        lines = [shlex.split(line) for line in self.all("COPY") if not line.startswith("--from=")]
        return [(words[:-1], words[-1]) for words in lines]


def read_dockerfile() -> list[Stage]:
    """Return the Dockerfile's stages. Lines before the first stage belong to none."""
    page = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    page = re.sub(r"^#.*\n", "", page, flags=re.M).replace("\\\n", " ")
    lines = [tuple(line.split(maxsplit=1)) for line in page.splitlines() if line.strip()]
    arguments = dict(rest.partition("=")[::2] for name, rest in lines if name == "ARG")
    stages: list[Stage] = []
    for name, rest in lines:
        if name == "FROM":
            stages.append(Stage([]))
        if stages:
            filled = re.sub(r"\$\{(\w+)\}", lambda at: arguments[at[1]], rest) if name == "FROM" else rest
            stages[-1].instructions.append((name, filled))
    return stages
