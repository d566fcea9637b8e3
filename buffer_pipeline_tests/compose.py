"""What docker-compose.yml and the Dockerfile say, read as Compose and Docker read them."""

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]

VARIABLE: Final = re.compile(r"\$\$|\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")
"""A dollar sign, or a variable with what stands for it where it is unset or empty: no other kind is used."""


def read_compose(**variables: str) -> dict[str, Any]:
    """Return docker-compose.yml with its variables filled in, word by word."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else variables.get(found["name"]) or found["default"]

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: filled(each) for name, each in node.items()}
        if isinstance(node, list):
            return [filled(each) for each in node]
        return VARIABLE.sub(value, node) if isinstance(node, str) else node

    document: dict[str, Any] = filled(
        yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    )
    return document


def seconds(duration: str) -> float:
    """Return a duration such as 1m30s in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def size_bytes(size: str) -> int:
    """Return a size such as 128m in bytes."""
    return int(size[:-1]) * {"m": 2**20, "g": 2**30}[size[-1]]


@dataclass(frozen=True)
class Stage:
    """A stage of the Dockerfile: its instructions in order, each with its arguments as they stand."""

    instructions: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of each such instruction."""
        return [arguments for name, arguments in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        """Return the arguments of the last such instruction, which is the one that counts."""
        return self.all(instruction)[-1]

    @property
    def environment(self) -> dict[str, str]:
        """What ENV says."""
        return dict(word.split("=", 1) for line in self.all("ENV") for word in shlex.split(line))

    @property
    def entrypoint(self) -> list[str]:
        """What is put before each command."""
        words: list[str] = json.loads(self.last("ENTRYPOINT"))
        return words

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """What is copied out of the repository, and to where."""
        lines = [shlex.split(line) for line in self.all("COPY") if not line.startswith("--from=")]
        return [(words[:-1], words[-1]) for words in lines]


def read_dockerfile() -> list[Stage]:
    """Return the Dockerfile's stages; what stands before the first belongs to none."""
    page = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    page = re.sub(r"^#.*\n", "", page, flags=re.M).replace("\\\n", " ")
    lines = [tuple(line.split(maxsplit=1)) for line in page.splitlines() if line.strip()]
    arguments = dict(rest.split("=", 1) for name, rest in lines if name == "ARG")
    stages: list[Stage] = []
    for name, rest in lines:
        if name == "FROM":
            stages.append(Stage([]))
        if stages:
            filled = re.sub(r"\$\{(\w+)\}", lambda at: arguments[at[1]], rest) if name == "FROM" else rest
            stages[-1].instructions.append((name, filled))
    return stages


def build(folder: Path, **build_args: str) -> Path:
    """Run the Dockerfile's build stage in `folder`, and return the programs that it makes."""
    (stage,) = (stage for stage in read_dockerfile() if stage.last("FROM").endswith(" AS build"))
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    arguments = {**dict(line.split("=", 1) for line in stage.all("ARG")), **build_args}
    for name, line in stage.instructions:
        if name == "ENV":
            variable, word = line.split("=", 1)
            environment[variable] = re.sub(r"\$\{(\w+)\}", lambda at: arguments[at[1]], word)
        elif name == "RUN":
            done = subprocess.run(
                ["/bin/sh", "-c", line],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
        elif name == "COPY" and not line.startswith("--from="):
            *sources, target = shlex.split(line)
            for source in sources:
                copy(ROOT / source, folder / target / (Path(source).name if target == "./" else ""))
    return folder / ".venv" / "bin"


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder without what running it has left."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
