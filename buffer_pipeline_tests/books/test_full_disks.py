"""A full disk is reported in one line, and no change is half done."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import psycopg
import pytest

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline_tests.support.cluster import Cluster, new_cluster, tiny_disk
from buffer_pipeline_tests.support.crasher import drain
from buffer_pipeline_tests.support.crashes import (
    HOLDS,
    EndState,
    end_of,
    engine_on,
    failure,
    hold_due,
    released,
    require_sound_files,
)
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.processes import COMMAND, finish, start

TINY_DISK_BYTES: Final = 48 * 2**20


@pytest.fixture(name="tiny_disk")
def a_tiny_disk() -> Iterator[Path]:
    """A small file system that the server's user can write to."""
    with tiny_disk(TINY_DISK_BYTES) as disk:
        yield disk


def fill(disk: Path) -> Path:
    """Fill the disk completely and return the file that fills it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - it ends the loop
    return filler


def test_full_data_disk_is_reported_and_nothing_is_half_done(cluster: Cluster, tiny_disk: Path) -> None:
    """Without space for the tables, a release ends with a message and exit code 1, and the books are
    unchanged. Once there is space, the next release releases everything.
    """
    folder = tiny_disk / "tables"
    folder.mkdir()
    if cluster.user is not None:
        shutil.chown(folder, cluster.user, cluster.user)
    holds = 5_000
    with psycopg.connect(
        cluster.server.url("postgres", user="postgres").set(drivername="postgresql").render_as_string(),
        autocommit=True,
    ) as admin:
        admin.execute(f"CREATE TABLESPACE tiny LOCATION '{folder}'")
        admin.execute("CREATE DATABASE books TEMPLATE buffer OWNER buffer TABLESPACE tiny")
    url = cluster.server.url("books").render_as_string()
    with engine_on(url) as engine:
        hold_due(engine, holds, wallets=50)
        before = end_of(engine)
        filler = fill(tiny_disk)

        code, line = failure(start("release", BUFFER_DATABASE_URL=url))

        assert code == 1
        assert line.startswith("database: could not extend file")
        assert line.endswith("No space left on device")
        assert end_of(engine) == before
        filler.unlink()
        answer = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=url)))
        assert answer["holds_released"] == holds
        end_of(engine)
        assert released(engine) == holds
    require_sound_files(cluster, "books")


def test_full_wal_disk_is_reported_and_nothing_is_half_done(
    programs_and_user: tuple[Path, str | None], tiny_disk: Path
) -> None:
    """Without space for the WAL, the server stops and a release ends with a message and exit code 1. Its
    committed batches remain, and the next release on a working server releases the rest.
    """
    programs, user = programs_and_user
    holds = 5_000
    folder = tiny_disk / "log"
    folder.mkdir()
    if user is not None:
        shutil.chown(folder, user, user)
    # No WAL segment is removed or reused, so the log grows with each write.
    settings = {"min_wal_size": "2MB", "max_wal_size": "1GB", "wal_recycle": "off"}
    with new_cluster(programs, user=user, settings=settings, wal_folder=folder) as cluster:
        url = cluster.server.books_url.render_as_string()
        with engine_on(url) as engine:
            hold_due(engine, holds, wallets=50)
        filler = fill(tiny_disk)

        code, line = failure(start("release", BUFFER_DATABASE_URL=url))
        with suppress(AssertionError):  # The server may have stopped already.
            cluster.stop("immediate")
        filler.unlink()
        cluster.start()

        assert code == 1
        assert line.startswith("database: ")
        with engine_on(url) as engine:
            end_of(engine)
            left = holds - released(engine)
            answer = json.loads(finish(start("release", "--json", BUFFER_DATABASE_URL=url)))
            assert answer["holds_released"] == left > 0
            end_of(engine)
        require_sound_files(cluster, "buffer")


@pytest.mark.parametrize("command", ["release --json", "release", "hold list", "reconcile"])
def test_command_whose_stdout_is_a_full_disk_reports_it(
    server: EmbeddedServer, due_books: str, undisturbed: EndState, command: str
) -> None:
    """The command ends with a message and exit code 1. Its committed changes remain."""
    with fresh_books(server, due_books) as url, engine_on(url) as engine:
        with Path("/dev/full").open("w") as full:
            environment = {**os.environ, "BUFFER_DATABASE_URL": url}
            environment.pop("PYTHONUNBUFFERED", None)
            done = subprocess.run(
                [*COMMAND, *command.split()],
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )

        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "output: No space left on device; what was committed is kept"
        assert "Traceback" not in done.stderr
        assert released(engine) == (HOLDS if command.startswith("release") else 0)
        drain(engine)
        assert end_of(engine) == undisturbed
