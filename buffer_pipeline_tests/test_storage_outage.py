"""Dagster's database is killed and comes back, under a real `dev`."""

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
from buffer_pipeline_tests.cluster import new_cluster
from buffer_pipeline_tests.installed import a_dagster
from buffer_pipeline_tests.stack import (
    ask,
    end_of,
    first_line,
    free_port,
    launch_release,
    repository,
    serving,
)

OUTAGE_SECONDS: Final = 30
LINES_MAX: Final = 1000
"""Of all of Dagster's processes. A traceback has a hundred: of who was in the middle of a statement."""


def look_at_the_runs(port: int) -> None:
    """Ask what a browser that is open asks again and again."""
    with suppress(urllib.error.URLError, TimeoutError, KeyError, TypeError):
        ask(port, "{runsOrError {... on Runs {results {status}}}}")


@pytest.mark.timeout(600)  # Of a machine that has much else to do.
def test_an_outage_of_dagsters_database(programs_and_user: tuple[Path, str | None], home: Path) -> None:
    """After it the next launch succeeds, and the log has a few lines of it, each of them once."""
    programs, user = programs_and_user
    port = free_port()
    log = home / "dagster" / "dagster.log"
    with new_cluster(programs, user=user) as cluster:
        url = cluster.server.books_url.render_as_string(hide_password=False)
        with serving(home, port, sample=False, BUFFER_DATABASE_URL=url) as process:
            first_line(process)
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
            behind = end_of(port, launched)
            all_lines = log.read_text().splitlines()

    print(f"{len(of_outage)} lines in an outage of {OUTAGE_SECONDS} seconds")
    assert (before, behind) == ("SUCCESS", "SUCCESS")
    assert len(of_outage) < LINES_MAX
    assert [line for line in all_lines if re.match("(INFO|WARNING|ERROR):", line)] == []
    assert any("Dagster's storage answers again, after " in line for line in all_lines)
    # A thread that has ended does its work no more: one of the code server's reports runs that crashed.
    assert [line for line in all_lines if line.startswith("Exception in thread")] == []


def test_a_server_that_refuses_is_not_waited_for(server: EmbeddedServer) -> None:
    """A process that has had an answer waits for a server that is away, not for one that says no."""
    with a_dagster(server) as installed:
        nowhere = make_url(installed.storage_url).set(database="nowhere")

        with pytest.raises(OperationalError, match="does not exist"):
            Storage(nowhere.render_as_string(hide_password=False))
