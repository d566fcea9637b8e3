"""The clock of a sandbox over HTTP: a hold of seven days in one request, and what real books say."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from buffer_pipeline.database import make_engine
from buffer_pipeline.embedded import API, EmbeddedServer
from buffer_pipeline_tests.support.api import EARNING, Api, running_api
from buffer_pipeline_tests.support.databases import fresh_books
from buffer_pipeline_tests.support.hostile import digest
from buffer_pipeline_tests.support.sandboxes import NEW_YEAR, clock_of, started


def test_hold_of_seven_days_is_released_by_one_request(api_of_sandbox: Api) -> None:
    """The earning is dated by the sandbox, waits until its hour, and is then in the balance."""
    api = api_of_sandbox
    before = api.reader.get("/test_clock").json()["now"]
    held = api.platform.post("/earnings", EARNING).json()

    six = api.platform.post("/test_clock/advance", {"duration": "6d"}).json()
    waiting = api.reader.get(f"/holds/{held['hold_id']}").json()
    seven = api.operator.post("/test_clock/advance", {"duration": "25h"}).json()
    settled = api.reader.get(f"/holds/{held['hold_id']}").json()

    assert waiting["held_at"] == before
    assert (six["holds_released"], waiting["state"]) == (0, "BUFFERED")
    assert (seven["holds_released"], seven["released"]) == (1, {"PHP": "1250.50"})
    assert settled["state"] == "RELEASED"
    assert settled["settled_at"].endswith(":00:00Z")
    assert settled["settled_at"] >= settled["release_date"]
    assert api.reader.get("/test_clock").json()["now"] == seven["now"]


def test_repeated_request_advances_once(api_of_sandbox: Api) -> None:
    """The answer of the first comes again, and other content under its key is refused."""
    api = api_of_sandbox
    before = clock_of(api.engine).now

    first = api.platform.post("/test_clock/advance", {"duration": "90m"}, key="once")
    again = api.platform.post("/test_clock/advance", {"duration": "90m"}, key="once")
    other = api.platform.post("/test_clock/advance", {"duration": "91m"}, key="once")

    assert (first.status_code, again.status_code, other.status_code) == (200, 200, 422)
    assert first.text == again.text
    assert again.headers["idempotency-replayed"] == "true"
    assert clock_of(api.engine).now == before + timedelta(minutes=90)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"duration": "2y"}, "needs a number of days"),
        ({"to": "2025-12-31T00:00Z"}, "never goes back"),
        ({"to": "2999-01-01T00:00Z"}, "more than a year"),
        ({"to": "2026-06-01T00:00"}, "no time zone"),
        ({"duration": "1h", "to": "2026-06-01T00:00Z"}, "not both"),
        ({}, "no advance is unfinished"),
        ({"duration": 7}, "duration"),
        ({"days": 7}, "days"),
    ],
)
def test_wrong_requests_are_named(api_of_sandbox: Api, body: dict[str, object], said: str) -> None:
    """Each is a 422, and the clock stays."""
    before = clock_of(api_of_sandbox.engine)

    answer = api_of_sandbox.platform.post("/test_clock/advance", body)

    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert clock_of(api_of_sandbox.engine) == before


def test_real_books_refuse_both(api: Api) -> None:
    """With a 409 that says what the books are; nothing is released or written."""
    api.platform.post("/earnings", EARNING)
    before = digest(api.engine)

    shown = api.reader.get("/test_clock")
    advanced = api.platform.post("/test_clock/advance", {"duration": "7d"})

    for answer in (shown, advanced):
        assert answer.status_code == 409
        assert answer.json()["type"].endswith(":clock-refused")
        assert "no sandbox" in answer.json()["detail"]
    assert digest(api.engine) == before


def test_second_request_is_refused_while_one_is_running(api_of_sandbox: Api) -> None:
    """Whoever runs the first: here a session that has its lock."""
    api = api_of_sandbox
    with api.engine.begin() as connection:
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended('buffer.sandbox.advance', 0))")
        )
        refused = api.platform.post("/test_clock/advance", {"duration": "1h"})

    assert refused.status_code == 409
    assert "another advance is running" in refused.json()["detail"]


def test_login_that_may_not_release_is_named(server: EmbeddedServer) -> None:
    """The answer says which role the server's login needs."""
    admin = make_engine(server.url("postgres", user="postgres"))
    with fresh_books(server) as url:
        engine = make_engine(url)
        started(engine)
        with admin.begin() as connection:
            connection.execute(text(f"REVOKE buffer_releaser FROM {API}"))
        try:
            with running_api(url) as running:
                refused = running.platform.post("/test_clock/advance", {"duration": "1h"})
        finally:
            with admin.begin() as connection:
                connection.execute(text(f"GRANT buffer_releaser TO {API}"))
            admin.dispose()
        assert refused.status_code == 503
        assert "may not act as buffer_releaser" in refused.json()["detail"]
        assert clock_of(engine).now == NEW_YEAR
        engine.dispose()
