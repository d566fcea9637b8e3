"""The output of `dev`, its logins, and the holds of its books."""

import os
import re
import subprocess
from pathlib import Path

from sqlalchemy import Engine, func, select

from buffer_pipeline.tables import hold
from buffer_pipeline_tests.support.stack import processes_of


def held(engine: Engine) -> int:
    """Return the number of holds."""
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(hold)).scalar_one()


def logins_of(home: Path) -> set[str]:
    """Return the logins of the processes of `serve`, from their environment."""
    environments = [
        (Path("/proc") / str(pid) / "environ").read_bytes().decode() for pid in processes_of(home)
    ]
    return set(re.findall(r"BUFFER_(?:DAGSTER_)?DATABASE_URL=[^/]+//(\w+)@", "".join(environments)))


def command_of(output: list[str]) -> str:
    """Return the command of the second thing to try."""
    return next(line for line in output if line.startswith("  2. ")).partition(": ")[2]


def typed(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as in another terminal: in another folder, with a different PATH."""
    return subprocess.run(
        ["bash", "-c", command],
        env={"PATH": os.defpath, "HOME": os.environ["HOME"], **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
