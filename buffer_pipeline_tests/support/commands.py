"""The command line in this process: a command's result, and the list of commands."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, text

from buffer_pipeline.cli.commands import CommandList


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The only document on stdout."""
        return json.loads(self.out)


Run = Callable[..., Result]

EARNING = {
    "reference": "job-8-done",
    "job": "job-8",
    "payee": "worker-17",
    "payer": "client-3",
    "amount": "1250.50",
    "currency": "PHP",
}

LONG_AGO = "2026-01-05T00:00:00Z"


def hold_add(run: Run, *, share: Sequence[str] = (), **changes: str) -> Result:
    """Run `hold add` with the example's options, some of them changed."""
    options = [*{**EARNING, **changes}.items(), *(("share", each) for each in share)]
    arguments = [part for name, value in options for part in (f"--{name.replace('_', '-')}", value)]
    return run("hold", "add", *arguments, "--json")


WITHOUT_BOOKS: Final = {"notifications preview", "notifications test-webhook"}


def commands(command: Any, *names: str) -> Iterator[str]:
    """Yield each command with the words before it."""
    if isinstance(command, CommandList):
        for name in command.commands:
            yield from commands(command.load(name), *names, name)
    else:
        yield " ".join(names)


def rows_in_books(engine: Engine) -> dict[str, int]:
    """Return the number of rows in each table."""
    tables = ("wallet", "hold", "transaction", "notification", "hold_freeze", "backjob", "batch")
    with engine.connect() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM buffer.{table}")).scalar_one()
            for table in tables
        }
