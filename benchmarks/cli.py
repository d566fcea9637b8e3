"""How long the command line takes, beside loading the libraries that it cannot do without."""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.figure import Figure
from benchmarks.server import BenchmarkServer
from buffer_pipeline.database import database_clock
from buffer_pipeline.wallet import deposit

TURNS: Final = 10

_LOAD: Final = "import sqlalchemy, psycopg"
_QUERY: Final = """
import os, psycopg, sqlalchemy
engine = sqlalchemy.create_engine(os.environ["BUFFER_DATABASE_URL"])
with engine.connect() as connection:
    print(connection.execute(sqlalchemy.text(
        "SELECT owner, currency, balance_minor, pending_earnings_minor FROM buffer.wallet"
        " WHERE owner = 'worker-17'"
    )).all())
"""
_COMPLETION: Final = {
    "_BUFFER_PIPELINE_COMPLETE": "complete_bash",
    "COMP_WORDS": "buffer-pipeline hold ",
    "COMP_CWORD": "2",
}


def measure(server: BenchmarkServer) -> list[Figure]:
    """Return the median of ten turns of each, taken in turns, so that all meet the same machine."""
    program = str(Path(sys.executable).with_name("buffer-pipeline"))
    python = [sys.executable, "-c"]
    with server.books() as name:
        engine = server.engine(name)
        with engine.begin() as connection:
            now = database_clock(connection)
            deposit(connection, owner="worker-17", amount="5", currency="PHP", reference="r", now=now)
        engine.dispose()
        books = {"BUFFER_DATABASE_URL": server.url(name)}
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "load": ([*python, _LOAD], {}),
            "query": ([*python, _QUERY], books),
            "help": ([program, "--help"], {}),
            "group": ([program, "hold", "--help"], {}),
            "completion": ([program], _COMPLETION),
            "wallet": ([program, "wallet", "show", "worker-17"], books),
        }
        seconds: dict[str, list[float]] = {command: [] for command in commands}
        for _ in range(TURNS):
            for command, (words, settings) in commands.items():
                seconds[command].append(_seconds(words, settings))
    taken = {command: median(all_turns) for command, all_turns in seconds.items()}
    load = f"python -c '{_LOAD}'"
    return [
        _figure("--help", taken["help"], load, taken["load"], ratio_max=0.5),
        _figure("hold --help", taken["group"], load, taken["load"], ratio_max=0.5),
        _figure("completion of a command's name", taken["completion"], "--help", taken["help"], ratio_max=1),
        _figure(
            "wallet show", taken["wallet"], "the same query by SQLAlchemy", taken["query"], ratio_max=1.5
        ),
    ]


def _seconds(words: list[str], settings: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _figure(name: str, value: float, yardstick: str, yardstick_value: float, *, ratio_max: float) -> Figure:
    ratio = value / yardstick_value
    return Figure(
        benchmark="cli",
        name=name,
        value=value,
        unit="s",
        yardstick=yardstick,
        yardstick_value=yardstick_value,
        ratio=ratio,
        goal=f"at most {ratio_max}",
        met=ratio <= ratio_max,
    )
