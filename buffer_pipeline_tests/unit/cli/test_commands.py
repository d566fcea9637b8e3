"""The lists of commands match the commands, and load none of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest
import typer

from buffer_pipeline.cli.app import app
from buffer_pipeline.cli.commands import CommandList

LOADED: Final = """
import json, sys
from buffer_pipeline_start import main
try:
    main()
except SystemExit:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""
HEAVY: Final = frozenset(
    {"sqlalchemy", "psycopg", "pydantic_settings", "rich", "dagster", "pandas", "structlog"}
)


def pairs(command: Any, *words: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield each command's words with its list entry and the command."""
    if isinstance(command, CommandList):
        for name, listed in command.commands.items():
            loaded = command.load(name)
            yield " ".join((*words, name)), listed, loaded
            yield from pairs(loaded, *words, name)


def test_lists_match_the_help_of_the_commands() -> None:
    """Each entry is the first sentence of its command's help."""
    found = {words: (listed, loaded) for words, listed, loaded in pairs(typer.main.get_command(app))}

    assert len(found) > 35
    for words, (listed, loaded) in found.items():
        assert listed.short_help == (
            loaded.help.partition("\n")[0] if words in ("hold",) else first(loaded.help)
        )


def first(help_text: str) -> str:
    """Return the first sentence of a help text, on one line."""
    paragraph = " ".join(help_text.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".") + "."


@pytest.mark.parametrize("arguments", [["--help"], ["hold", "--help"]])
def test_help_loads_no_command(arguments: list[str]) -> None:
    """`--help` of the program and of a group lists commands without importing SQLAlchemy, Rich or
    a command.
    """
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )

    assert "Commands:" in done.stdout
    assert HEAVY.isdisjoint(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("buffer-pipeline rele", {"release", "release-now"}),
        ("buffer-pipeline hold ", {"add", "import", "list", "reschedule", "show"}),
    ],
)
def test_the_shell_completes_names_without_loading_a_command(words: str, completed: set[str]) -> None:
    """Bash calls the program, which completes from its lists."""
    environment = {
        **os.environ,
        "_BUFFER_PIPELINE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }

    done = subprocess.run(
        [sys.executable, "-c", LOADED.replace("main()", "sys.argv[0] = 'buffer-pipeline'; main()")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert set(done.stdout.split()) == completed
    assert HEAVY.isdisjoint(json.loads(done.stderr.splitlines()[-1]))
