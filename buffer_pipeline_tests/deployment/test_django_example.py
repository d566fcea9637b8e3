"""examples/django, served by Django: a small marketplace whose payments wait in the buffer."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, timedelta
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.database import database_clock, make_engine
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.release_run.run import release_all_due
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.paths import ROOT
from buffer_pipeline_tests.support.platforms import login, manage, superuser
from buffer_pipeline_tests.support.stack import WAIT_SECONDS_MAX, free_port, wait_for

EXAMPLE: Final = ROOT / "examples" / "django"


@dataclass(frozen=True)
class Shop:
    """The example, on Django's development server."""

    address: str

    def log_in(self, name: str) -> "Visitor":
        visitor = Visitor(self.address, build_opener(HTTPCookieProcessor(CookieJar())))
        status, page = visitor.post("/login", username=name, password="secret")
        assert (status, f"<h1>{name}</h1>" in page) == (200, True)
        return visitor


@dataclass(frozen=True)
class Visitor:
    """A user with a session."""

    address: str
    opener: OpenerDirector

    def page(self, path: str = "/") -> str:
        with self.opener.open(self.address + path) as answer:
            found: str = answer.read().decode()
            return found

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        """Send a form with its session's token. Return the status after redirects, and the page."""
        form = self.page("/login")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
        body = urlencode({**fields, "csrfmiddlewaretoken": token[1] if token else ""}).encode()
        try:
            with self.opener.open(self.address + path, body) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def shop(server: EmbeddedServer, tmp_path: Path) -> Iterator[tuple[Shop, Engine]]:
    """The example on a separate database with two users and three jobs, with a platform's login."""
    with login(server, "buffer_platform") as role, fresh_books(server) as url:
        with superuser(url).begin() as connection:
            connection.execute(text(f"GRANT CREATE ON SCHEMA public TO {role}"))
        settings = {
            "SHOP_DATABASE_URL": url.replace("//buffer@", f"//{role}@"),
            "SHOP_SECRET_KEY": os.urandom(32).hex(),
        }
        manage(EXAMPLE, "migrate", **settings)
        manage(EXAMPLE, "demo", "secret", **settings)
        port = free_port()
        log = tmp_path / "log"
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
            cwd=EXAMPLE,
            env={**os.environ, **settings},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
        )
        served, books = Shop(f"http://127.0.0.1:{port}"), make_engine(url)
        try:
            wait_for(lambda: process.poll() is not None or answers(served.address), what="the example")
            assert process.poll() is None, log.read_text()
            yield served, books
        finally:
            process.terminate()
            process.wait(WAIT_SECONDS_MAX)
            books.dispose()
            with superuser(url).begin() as connection:
                connection.execute(text(f"DROP OWNED BY {role}"))


def answers(address: str) -> bool:
    try:
        with build_opener().open(f"{address}/login"):
            return True
    except OSError:
        return False


def test_example_from_approval_to_the_workers_balance(shop: tuple[Shop, Engine]) -> None:
    """The client approves, the earning waits, matures and is the worker's. A backjob after that
    is refused.
    """
    served, books = shop
    client, worker = served.log_in("client-3"), served.log_in("worker-17")

    approvals = [client.post("/jobs/1/approve")[0] for _ in range(2)]
    waiting = worker.page()
    with books.connect() as connection:
        due_by = database_clock(connection) + timedelta(days=8)
        release_date = connection.execute(text("SELECT release_date FROM buffer.hold_status")).scalar_one()
    run = release_all_due(books, due_by=due_by, source="a test", clock=lambda _: due_by)
    released = worker.page()
    too_late, refusal = client.post("/jobs/1/backjob", reason="drips again")

    assert approvals == [200, 200]
    assert '<span id="balance">0.00</span>' in waiting
    assert '<span id="pending">1250.50</span>' in waiting
    assert f"BUFFERED, releases {release_date.astimezone(UTC):%Y-%m-%d %H:%M} UTC" in waiting
    assert run.amounts_minor == {"PHP": 125_050}
    assert '<span id="balance">1250.50</span>' in released
    assert '<span id="pending">0.00</span>' in released
    assert "RELEASED" in released
    assert too_late == 409
    assert refusal == "job '1': all its holds are settled; a backjob needs an unsettled one\n"


def test_example_freezes_the_payment_of_a_backjob(shop: tuple[Shop, Engine]) -> None:
    """A backjob in time freezes the payment, and the release skips it. A second backjob is refused."""
    served, books = shop
    client = served.log_in("client-3")
    client.post("/jobs/1/approve")

    arguments, _ = client.post("/jobs/1/backjob", reason="drips again")
    again, _ = client.post("/jobs/1/backjob", reason="drips still")
    with books.connect() as connection:
        due_by = database_clock(connection) + timedelta(days=8)
    run = release_all_due(books, due_by=due_by, source="a test", clock=lambda _: due_by)

    assert (arguments, again) == (200, 409)
    assert run.holds_released == 0
    assert "FROZEN" in client.page()


def test_example_rolls_its_own_row_back_with_a_refusal(shop: tuple[Shop, Engine]) -> None:
    """If the buffer refuses an approval, the job stays unchanged."""
    served, books = shop
    client = served.log_in("client-3")

    status, refusal = client.post("/jobs/3/approve")

    assert status == 409
    assert "amount" in refusal
    with books.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM buffer.hold")).scalar_one() == 0
    assert client.page().count("AGREED") == 3


def test_example_lets_only_the_client_approve(shop: tuple[Shop, Engine]) -> None:
    """The worker gets 404, and nothing is held."""
    served, books = shop
    worker = served.log_in("worker-17")

    status, _ = worker.post("/jobs/1/approve")

    assert status == 404
    assert served.log_in("client-3").page().count("AGREED") == 3
    with books.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM buffer.hold")).scalar_one() == 0
