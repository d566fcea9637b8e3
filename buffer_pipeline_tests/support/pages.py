"""Runs the commands of a page unchanged, and compares their output with the page."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from buffer_pipeline_tests.support.paths import ROOT

DOCS: Final = ROOT / "docs"
_BLOCK: Final = re.compile(
    r"^```(sh|text)(?: (as-server))?(?: exits-(\d+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """Commands or their output, with the user who runs them and their exit code."""

    kind: str
    by: str
    code: str
    body: str


def blocks_of(page: Path) -> list[Block]:
    """Return all blocks of commands and output of a page."""
    return [Block(*found) for found in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def sections(page: str) -> dict[str, list[Block]]:
    """Return the blocks of each section of a page of docs/, by heading."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return {
        section.partition("\n")[0]: [Block(*found) for found in _BLOCK.findall(section)]
        for section in text.split("\n## ")[1:]
    }


def run_blocks(
    blocks: list[Block],
    *,
    cwd: Path,
    environment: Mapping[str, str],
    server_user: str | None = None,
    starter: Sequence[str] = (),
) -> str:
    """Run a section's commands. Each must exit as the page says and print the lines below it, apart from
    digits.

    `starter` is a program that starts the one whose command line follows. Returns the output of the last
    commands.
    """
    output = ""
    for kind, by, code, body in blocks:
        if kind == "text":
            for line in body.splitlines():
                assert _without_digits(line) in _without_digits(output), f"{line!r} is not in {output!r}"
            continue
        done = subprocess.run(
            [*starter, "bash", "-euo", "pipefail", "-c", body],
            cwd=cwd,
            env=environment,
            user=server_user if by else None,
            group=server_user if by else None,
            extra_groups=[] if by and server_user else None,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout
        assert done.returncode == int(code or 0), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    return output


def _without_digits(lines: str) -> str:
    """Return the lines with each number masked and blanks collapsed."""
    return re.sub(r"\d+", "N", " ".join(lines.split()))
