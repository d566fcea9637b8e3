"""Dagster's database is killed and returns, under a real `dev`."""

import re
import time
import urllib.error
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.orchestration.storage import Storage
from buffer_pipeline_tests.support.cluster import new_cluster
from buffer_pipeline_tests.support.installed import a_dagster
from buffer_pipeline_tests.support.stack import (
    ask,
    end_of,
    free_port,
    launch_release,
    lines_until_ui,
    repository,
    serving,
)

OUTAGE_SECONDS: Final = 30
LINES_MAX: Final = 1000
"""For all processes of Dagster. A traceback, of a process in the middle of a statement, has a
hundred lines.
"""


def look_at_the_runs(port: int) -> None:
    """Send the UI's repeated query for runs."""
    with suppress(urllib.error.URLError, TimeoutError, KeyError, TypeError):
        ask(port, "{runsOrError {... on Runs {results {status}}}}")


@pytest.mark.timeout(600)  # For a busy machine.
def test_an_outage_of_dagsters_database(programs_and_user: tuple[Path, str | None], home: Path) -> None:
    """The next launch succeeds, and the log has a few lines about the outage, each once."""
    programs, user = programs_and_user
    port = free_port()
    log = home / "dagster" / "dagster.log"
    with new_cluster(programs, user=user) as cluster:
        url = cluster.server.books_url.render_as_string(hide_password=False)
        with serving(home, port, sample=False, BUFFER_DATABASE_URL=url) as process:
            lines_until_ui(process)
            repository(port)
            before = end_of(port, launch_release(port))
            look_at_the_runs(port)
            lines_before = len(log.read_text().splitlines())

            cluster.kill()
            back_at = time.monotonic() + OUTAGE_SECONDS
            while time.monotonic() < back_at:
                look_at_the_runs(port)
                time.sleep(1)
            of_outage = log.read_text().splitlines()[lines_before:]
            cluster.start()
            launched = launch_release(port)
            after = end_of(port, launched)
            all_lines = log.read_text().splitlines()

    print(f"{len(of_outage)} lines in an outage of {OUTAGE_SECONDS} seconds")
    assert (before, after) == ("SUCCESS", "SUCCESS")
    assert len(of_outage) < LINES_MAX
    assert [line for line in all_lines if re.match("(INFO|WARNING|ERROR):", line)] == []
    assert any("Dagster's storage answers again, after " in line for line in all_lines)
    # A thread that ended would miss work: one of the code server's threads reports crashed runs.
    assert [line for line in all_lines if line.startswith("Exception in thread")] == []


def test_refused_connection_is_not_retried(server: EmbeddedServer) -> None:
    """A process that has connected before waits for an absent server, but not for one that refuses."""
    with a_dagster(server) as installed:
        nowhere = make_url(installed.storage_url).set(database="nowhere")

        with pytest.raises(OperationalError, match="does not exist"):
            Storage(nowhere.render_as_string(hide_password=False))
