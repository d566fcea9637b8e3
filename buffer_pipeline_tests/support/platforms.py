"""Django platforms with the books: commands of their projects, and their logins."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import EmbeddedServer


def manage(directory: Path, *words: str, **settings: str) -> str:
    """Run a Django project's `manage.py` and return its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=directory,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def superuser(url: str) -> Engine:
    """Return a superuser's engine on the books."""
    return make_engine(url.replace("//buffer@", "//postgres@"))


@contextmanager
def login(server: EmbeddedServer, group: str) -> Iterator[str]:
    """Create a login that is a member of a role. Drop it at the end with what it owns."""
    role = f"platform_{os.urandom(6).hex()}"
    admin = make_engine(server.url("postgres", user="postgres"))
    with admin.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN IN ROLE {group}"))
    yield role
    with admin.begin() as connection:
        connection.execute(text(f"DROP ROLE {role}"))
    admin.dispose()
