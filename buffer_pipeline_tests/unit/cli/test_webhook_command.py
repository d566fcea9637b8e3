"""`notifications test-webhook`."""

import pytest
from pytest_httpserver import HTTPServer
from standardwebhooks import Webhook
from werkzeug import Request, Response

from buffer_pipeline_tests.support.commands import Run
from buffer_pipeline_tests.support.notification_commands import SECRET, endpoints, url_of, webhook


def test_a_webhook_is_tried_with_a_secret(run: Run, backend: HTTPServer) -> None:
    """The receiver can verify the request. Its id differs from those of real notifications."""
    tried = run(
        "notifications", "test-webhook", url_of(backend), "--secret", SECRET, "--allow-private", "--json"
    )

    assert (tried.code, tried.json["delivered"], tried.json["outcome"]) == (0, True, "delivered")
    (request, _), *_ = backend.log
    payload = Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))
    assert request.headers["webhook-id"] == tried.json["webhook_id"]
    assert 9 * 10**15 <= payload["data"]["notification_id"] < 2**53
    assert payload["type"] == "payment.released"
    assert payload["data"]["owner"] == "test-webhook"
    assert payload["data"]["title"].startswith("Test: ")
    assert payload["data"]["message"]["title"] == "Test: Payment Released! 🎉"
    assert SECRET not in tried.out + tried.err


def test_two_trials_at_once_differ(run: Run, backend: HTTPServer) -> None:
    """Within one second each has its own id, so that neither looks like a repetition."""
    arguments = ("notifications", "test-webhook", url_of(backend), "--allow-private", "--json")

    ids = {run(*arguments).json["webhook_id"] for _ in range(3)}

    assert len(ids) == 3


def test_a_webhook_is_tried_with_its_endpoints_options(
    run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL of a configured endpoint uses that endpoint's secret."""
    endpoints(monkeypatch, webhook(backend))

    tried = run("notifications", "test-webhook", url_of(backend), "--type", "BACKJOB_REJECTED", "--json")

    assert tried.json["delivered"] is True
    assert tried.json["made_up_secret"] is None
    (request, _), *_ = backend.log
    assert Webhook(SECRET).verify(request.get_data(), dict(request.headers.items()))["type"] == (
        "backjob.rejected"
    )


def test_generated_secret_is_printed(run: Run, backend: HTTPServer) -> None:
    """Without a secret, one is generated so that the receiver's verification can be tried."""
    tried = run("notifications", "test-webhook", url_of(backend), "--allow-private", "--json")

    (request, _), *_ = backend.log
    assert Webhook(tried.json["made_up_secret"]).verify(request.get_data(), dict(request.headers.items()))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(500, "would be tried again"), (410, "refused, would become a dead letter"), (302, "redirect")],
)
def test_refused_webhook_exits_1(run: Run, httpserver: HTTPServer, status: int, outcome: str) -> None:
    """The answer is printed, and what would happen to a real notification."""

    def answer(_: Request) -> Response:
        return Response("not here", status=status, headers={"Location": "https://example.com/"})

    httpserver.expect_request("/notifications").respond_with_handler(answer)

    tried = run("notifications", "test-webhook", url_of(httpserver), "--allow-private", "--json")

    assert tried.code == 1
    assert outcome in tried.json["outcome"]
    assert str(status) in tried.json["outcome"]
