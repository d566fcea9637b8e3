"""A real PgBouncer in front of a server, which gives each transaction any free session."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import URL, make_url

from buffer_pipeline.embedded import EmbeddedServer

START_SECONDS_MAX: Final = 30

# PgBouncer's defaults, except for its address, its users and the tested settings. Sessions are used in turn,
# so that a client rarely gets the same one twice. A wait for a session times out.
_SETTINGS: Final = """
[databases]
* = host={host} port={port}
[pgbouncer]
unix_socket_dir = {folder}
logfile = {folder}/log
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
query_wait_timeout = 60
server_round_robin = 1
"""

_LOGINS: Final = ("buffer", "dagster", "a_platform", "a_releaser", "a_reader", "a_payouts", "a_api")


@dataclass(frozen=True)
class Pooler:
    """A running PgBouncer."""

    folder: Path

    def url(self, direct: str | URL) -> str:
        """Return the URL of the same database through the pooler."""
        query = {"host": str(self.folder), "port": "6432"}
        return make_url(direct).set(query=query).render_as_string(hide_password=False)


@contextmanager
def pgbouncer(server: EmbeddedServer, *, sessions: int = 2) -> Iterator[Pooler]:
    """Yield a pooler in transaction mode with this many sessions per login and database.

    Skips if it is not installed.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        reason = "no PgBouncer; Debian's package is pgbouncer"
        if os.environ.get("REQUIRE_PGBOUNCER"):
            pytest.fail(reason)
        pytest.skip(reason)
    # PgBouncer refuses root. The server's user can reach its socket.
    user = server.socket_dir.owner() if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = _SETTINGS.format(
            host=server.socket_dir, port=server.port, folder=folder, sessions=sessions
        )
        (folder / "pgbouncer.ini").write_text(settings)
        (folder / "users").write_text("".join(f'"{login}" ""\n' for login in _LOGINS))
        if user is not None:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, user, user)
        process = subprocess.Popen(
            [program, "--quiet", folder / "pgbouncer.ini"],
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        try:
            deadline = time.monotonic() + START_SECONDS_MAX
            while not (folder / ".s.PGSQL.6432").exists():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, "PgBouncer does not listen"
                time.sleep(0.01)
            yield Pooler(folder)
        finally:
            process.terminate()
            process.wait(START_SECONDS_MAX)
