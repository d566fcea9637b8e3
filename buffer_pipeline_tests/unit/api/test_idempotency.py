"""A write with an Idempotency-Key is done once, however often and however concurrently it is sent."""

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text

from buffer_pipeline_tests.support.api import EARNING, Api
from buffer_pipeline_tests.support.processes import wait_until


def earning(number: int, **others: Any) -> dict[str, Any]:
    """Return an earning of its own."""
    return {**EARNING, "reference": f"r-{number}", "job": f"job-{number}", **others}


def count(api: Api, statement: str, **parameters: Any) -> int:
    """Return a number from the books."""
    with api.engine.connect() as connection:
        return int(connection.scalar(text(statement), parameters) or 0)


def holds_of(api: Api, number: int) -> int:
    """Return how many holds an earning has."""
    return count(api, "SELECT count(*) FROM buffer.hold WHERE reference = :it", it=f"r-{number}")


def answers_to(api: Api, key: str) -> int:
    """Return how many answers are stored under an idempotency key."""
    return count(api, "SELECT count(*) FROM buffer.api_request WHERE idempotency_key = :it", it=key)


def test_repeated_write_gets_the_first_answer(api: Api) -> None:
    """The answer is the same to the byte, and nothing is written a second time."""
    first = api.platform.post("/earnings", earning(1), key="once")

    again = api.platform.post("/earnings", earning(1), key="once")

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.content == first.content
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    # The verb itself would have said that it was replayed.
    assert again.json()["replayed"] is False
    assert (holds_of(api, 1), answers_to(api, "once")) == (1, 1)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/earnings", earning(2, amount="1.00")), ("/deposits", {**earning(2), "owner": "worker-17"})],
)
def test_other_content_under_the_same_key_is_refused(api: Api, path: str, body: dict[str, Any]) -> None:
    """Another body, or another path."""
    movement = {"owner": "worker-17", "amount": "1", "currency": "PHP", "reference": "m-2"}
    api.platform.post("/earnings", earning(2), key="content")

    refused = api.platform.post(path, movement if path == "/deposits" else body, key="content")

    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:buffer-pipeline:problem:idempotency-key-reused"
    assert "'content'" in refused.json()["detail"]


def test_keys_of_two_callers_are_apart(api: Api) -> None:
    """An idempotency key belongs to the API key that it came with."""
    first = api.platform.post("/owners/freeze", _freeze("worker-1"), key="mine")
    second = api.operator.post("/owners/freeze", _freeze("worker-2"), key="mine")

    assert (first.json()["owner"], second.json()["owner"]) == ("worker-1", "worker-2")


def _freeze(owner: str) -> dict[str, str]:
    return {"owner": owner, "kind": "RISK", "by": "risk-2", "reason": "look"}


def test_write_whose_first_is_in_flight_is_told_so_at_once(api: Api) -> None:
    """It does not wait, and gets the answer when the first has ended."""
    api.platform.post("/earnings", earning(3))
    with ThreadPoolExecutor(1) as threads:
        with api.engine.begin() as connection:
            connection.execute(text("SELECT FROM buffer.job WHERE job = 'job-3' FOR UPDATE"))
            body = {"job": "job-3", "by": "client-3", "reason": "leaks"}
            first = threads.submit(api.platform.post, "/backjobs", body, key="slow")
            wait_until(api.is_waiting_for_a_lock)

            meanwhile = api.platform.post("/backjobs", body, key="slow")

            assert meanwhile.status_code == 409
            assert meanwhile.json()["type"] == "urn:buffer-pipeline:problem:request-in-flight"
            assert meanwhile.headers["retry-after"] == "1"
            assert not first.done()
        answer = first.result()
    assert answer.status_code == 200
    assert api.platform.post("/backjobs", body, key="slow").content == answer.content


def test_concurrent_writes_with_one_key_are_done_once(api: Api) -> None:
    """Each gets the one answer, or is told to come back; nobody gets an error of the verb."""
    for number in range(100, 110):
        barrier = Barrier(4)

        def send(number: int = number, barrier: Barrier = barrier) -> Any:
            barrier.wait()
            # Without a reference of its own, a second one would be a second withdrawal.
            return api.platform.post("/earnings", earning(number), key=f"together-{number}")

        with ThreadPoolExecutor(4) as threads:
            answers = [each.result() for each in [threads.submit(send) for _ in range(4)]]

        assert {answer.status_code for answer in answers} <= {200, 409}
        done = {answer.content for answer in answers if answer.status_code == 200}
        assert len(done) == 1
        assert all(
            answer.json()["type"].endswith(":request-in-flight")
            for answer in answers
            if answer.status_code == 409
        )
        assert (holds_of(api, number), answers_to(api, f"together-{number}")) == (1, 1)


def test_lookup_sees_what_was_committed_after_the_transaction_began(api: Api) -> None:
    """The lock comes first, then the search: a retry that began before the first's commit gets its answer."""
    body = {"owner": "worker-5", "kind": "RISK", "by": "risk-2", "reason": "look"}
    with ThreadPoolExecutor(1) as threads, api.engine.begin() as connection:
        # The retry waits here before its first statement of its own: for its key.
        connection.execute(text("LOCK TABLE buffer.api_key IN ACCESS EXCLUSIVE MODE"))
        retry = threads.submit(api.platform.post, "/owners/freeze", body, key="late")
        wait_until(api.is_waiting_for_a_lock)
        connection.execute(
            text(
                "INSERT INTO buffer.api_request (api_key_id, idempotency_key, method, path, content_digest,"
                " status, answer, request_id, recorded_at) SELECT api_key_id, 'late', 'POST', '/', :digest,"
                " 200, '{}', 'r', now() FROM buffer.api_key WHERE role = 'platform'"
            ),
            {"digest": bytes(32)},
        )
    # Refused for its content, which this test cannot know: it was found.
    assert retry.result().json()["type"] == "urn:buffer-pipeline:problem:idempotency-key-reused"


def test_refusal_is_not_kept(api: Api) -> None:
    """What is refused rolls back; the same request is done when it can be."""
    body = {"owner": "worker-6", "amount": "5", "currency": "PHP", "reference": "out-6"}
    given = {**body, "reference": "in-6", "amount": "9"}

    refused = api.platform.post("/withdrawals", body, key="early")
    assert answers_to(api, "early") == 0
    api.platform.post("/deposits", given)
    done = api.platform.post("/withdrawals", body, key="early")

    assert (refused.status_code, done.status_code) == (404, 200)
    assert done.json()["balance"] == "4.00"


def test_answer_that_cannot_be_recorded_rolls_the_verb_back(api: Api) -> None:
    """The answer and the verb's work are one transaction."""
    with api.engine.begin() as connection:
        connection.execute(
            text("ALTER TABLE buffer.api_request ADD CONSTRAINT broken CHECK (idempotency_key <> 'broken')")
        )

    failed = api.platform.post("/earnings", earning(7), key="broken")

    assert failed.status_code == 500
    assert "constraint" not in failed.text
    assert holds_of(api, 7) == 0
    with api.engine.begin() as connection:
        connection.execute(text("ALTER TABLE buffer.api_request DROP CONSTRAINT broken"))
    assert api.platform.post("/earnings", earning(7), key="broken").status_code == 200
    assert holds_of(api, 7) == 1


def test_write_whose_client_goes_away_is_done(api: Api) -> None:
    """A client that closes its connection while the verb waits finds the answer by its key later."""
    api.platform.post("/earnings", earning(8))
    body = b'{"job":"job-8","by":"client-3","reason":"leaks"}'
    head = (
        f"POST /backjobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.platform.token}\r\n"
        f"Idempotency-Key: gone\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, _, port = api.url.removeprefix("http://").partition(":")
    with api.engine.begin() as connection:
        connection.execute(text("SELECT FROM buffer.job WHERE job = 'job-8' FOR UPDATE"))
        with socket.create_connection((host, int(port))) as client:
            client.sendall(head.encode() + body)
            wait_until(api.is_waiting_for_a_lock)
    wait_until(lambda: answers_to(api, "gone") == 1)

    again = api.platform.send("/backjobs", body, Idempotency_Key="gone")

    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["state"] == "OPEN"


def test_answers_are_kept_for_thirty_days(api: Api) -> None:
    """An answer of 29 days is still given; a later write deletes those that are older than 30."""
    for key, days in (("younger", 29), ("older", 31)):
        api.platform.post("/owners/freeze", _freeze(f"worker-{days}"), key=key)
        with api.engine.begin() as connection:
            connection.execute(
                text("UPDATE buffer.api_request SET recorded_at = now() - :age WHERE idempotency_key = :key"),
                {"age": timedelta(days=days), "key": key},
            )

    api.platform.post("/owners/freeze", _freeze("worker-30"))

    assert (answers_to(api, "younger"), answers_to(api, "older")) == (1, 0)


@pytest.mark.parametrize("key", ["", "x" * 201, "with space"])
def test_key_that_is_not_sound_is_refused(api: Api, key: str) -> None:
    """From 1 to 200 printable characters of ASCII; and there must be one."""
    refused = api.platform.send("/earnings", b"{}", Idempotency_Key=key)

    assert refused.status_code == 422
    assert "idempotency-key" in refused.json()["detail"]
