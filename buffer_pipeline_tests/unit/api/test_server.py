"""`buffer-pipeline serve` as a process: health, a graceful stop, and a kill in the middle of writes."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import Engine, make_url, text

from buffer_pipeline.api.keys import KeyRole
from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import API
from buffer_pipeline_tests.support.api import EARNING, keys_for_all
from buffer_pipeline_tests.support.processes import start, wait_until
from buffer_pipeline_tests.support.scale import count

CLIENTS: Final = 4
WRITES: Final = count("API_WRITES", part=2, whole=40)
"""Of each client."""


@contextmanager
def serving(url: str, *options: str, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve the books of the owner's URL as the login `api`. Yield the process and its address."""
    login = make_url(url).set(username=API).render_as_string(hide_password=False)
    process = start("--json", "serve", "--port", str(port), *options, BUFFER_DATABASE_URL=login)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.communicate()


def test_health(engine: Engine, database_url: str) -> None:
    """`/livez` needs no database; `/readyz` needs one at the right revision. Neither needs a key."""
    with serving(database_url) as (_, url), httpx.Client(base_url=url, timeout=60) as http:
        ready = http.get("/readyz")
        with engine.begin() as connection:
            connection.execute(text("UPDATE buffer.alembic_version SET version_num = '0001'"))
        old = http.get("/readyz")
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA buffer CASCADE"))
        gone = http.get("/readyz")
        alive = http.get("/livez")

    assert (ready.status_code, old.status_code, gone.status_code) == (200, 503, 503)
    assert "revision 0001" in old.json()["detail"]
    assert alive.json() == {"alive": True}


def test_login_without_the_roles_is_not_ready(database_url: str) -> None:
    """The answer says what is missing, also to a request with a key."""
    login = make_url(database_url).set(username="dagster").render_as_string(hide_password=False)
    process = start("--json", "serve", "--port", "0", BUFFER_DATABASE_URL=login)
    assert process.stdout is not None
    try:
        url = json.loads(process.stdout.readline())["url"]
        ready = httpx.get(f"{url}/readyz", timeout=60)
        asked = httpx.get(f"{url}/wallets", headers={"Authorization": f"Bearer bp_{'x' * 43}"}, timeout=60)
    finally:
        process.kill()
        process.communicate()

    assert (ready.status_code, asked.status_code) == (503, 503)
    assert "buffer_api" in ready.json()["detail"]
    assert asked.headers["retry-after"] == "1"


def test_database_that_is_down_is_a_503() -> None:
    """The server starts without it, and says so."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"postgresql://api@127.0.0.1:{free.getsockname()[1]}/none"
        with serving(nobody) as (_, url):
            ready = httpx.get(f"{url}/readyz", timeout=60)

    assert ready.status_code == 503
    assert ready.headers["content-type"] == "application/problem+json"
    assert "127.0.0.1" not in ready.text


def test_graceful_stop_answers_what_is_in_flight(engine: Engine, database_url: str) -> None:
    """After SIGTERM the requests that wait for a lock get their answers, and the process ends."""
    token = keys_for_all(engine)[KeyRole.PLATFORM]
    bodies = [{**EARNING, "reference": f"r-{number}"} for number in range(3)]
    answers: list[httpx.Response] = []
    with serving(database_url) as (process, url):

        def send(number: int) -> None:
            answers.append(post(url, token, bodies[number], key=f"k-{number}"))

        send(0)
        threads = [threading.Thread(target=send, args=[number]) for number in (1, 2)]
        with engine.begin() as connection:
            connection.execute(text("SELECT FROM buffer.job FOR UPDATE"))
            for thread in threads:
                thread.start()
            wait_until(lambda: waiting(engine) == 2)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(url))
            assert process.poll() is None
        for thread in threads:
            thread.join()
        code = process.wait(60)

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert code == 143


def test_stop_notice_answers_503_before_it_stops(engine: Engine, database_url: str) -> None:
    """In that time a load balancer sees that the server is not ready, and requests are still served."""
    token = keys_for_all(engine)[KeyRole.PLATFORM]
    with serving(database_url, "--stop-notice", "300") as (process, url):
        # It takes connections before it takes signals.
        assert httpx.get(f"{url}/livez", timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=60).status_code == 503)

        served = post(url, token, EARNING, key="k-1")
        # A second signal does not wait for the rest of the notice.
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)

    assert served.status_code == 200
    assert code == 143


def test_port_in_use_is_one_line(database_url: str) -> None:
    """As for every command that cannot do its work."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("serve", "--port", str(taken.getsockname()[1]), BUFFER_DATABASE_URL=database_url)
        _, err = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "Address already in use; see --host and --port" in err
    assert err.count("\n") == 1


@pytest.mark.timeout(1800)
def test_killed_server_loses_and_doubles_nothing(engine: Engine, database_url: str) -> None:
    """Clients repeat with their key until they have an answer, over kills of the server."""
    token = keys_for_all(engine)[KeyRole.PLATFORM]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    answers: dict[str, dict[str, Any]] = {}
    replayed: list[str] = []

    def client(name: int) -> None:
        for number in range(WRITES):
            key = f"k-{name}-{number}"
            body = {**EARNING, "reference": key, "job": f"job-{name}", "amount": "10.00"}
            while True:
                try:
                    answer = post(url, token, body, key=key)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    answers[key] = answer.json()
                    if "idempotency-replayed" in answer.headers:
                        replayed.append(key)
                    break
                # 409: the killed server's session still holds the key; 503: the database ends it.
                assert answer.status_code in {409, 503}, answer.text
                time.sleep(0.05)

    threads = [threading.Thread(target=client, args=[name]) for name in range(CLIENTS)]
    chance = random.Random(17)
    kills = 0
    started = False
    while not started or any(thread.is_alive() for thread in threads):
        with serving(database_url, port=port) as (process, _):
            if not started:
                for thread in threads:
                    thread.start()
                started = True
            enough = partial(has_answers, answers, len(answers) + 4, threads)
            wait_until(enough)
            time.sleep(chance.random() / 50)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    for thread in threads:
        thread.join()

    assert kills > 1
    assert len(answers) == CLIENTS * WRITES
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT reference, hold_id FROM buffer.hold")).all()
        assert {row.reference: row.hold_id for row in stored} == {
            key: answer["hold_id"] for key, answer in answers.items()
        }
        assert len(stored) == CLIENTS * WRITES
        assert connection.scalar(text("SELECT count(*) FROM buffer.api_request")) == CLIENTS * WRITES
        assert reconcile(connection) == []


def has_answers(answers: dict[str, Any], wanted: int, threads: list[threading.Thread]) -> bool:
    """Return True if there are so many answers, or no client is left."""
    return len(answers) >= wanted or not any(thread.is_alive() for thread in threads)


def post(url: str, token: str, body: dict[str, Any], *, key: str) -> httpx.Response:
    """Add an earning over a connection of its own."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    return httpx.post(f"{url}/earnings", json=body, headers=headers, timeout=60, trust_env=False)


def listens(url: str) -> bool:
    """Return True if the server takes connections."""
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def waiting(engine: Engine) -> int:
    """Return how many sessions wait for a lock."""
    admin = make_engine(engine.url.set(username="postgres"))
    with admin.connect() as connection:
        found = connection.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
    admin.dispose()
    return int(found or 0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is asked directly."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
