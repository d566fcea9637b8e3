"""Endpoints of the command line, and a backend that refuses."""

import json
from base64 import b64encode
from typing import Any, Final

import pytest
from pytest_httpserver import HTTPServer

from buffer_pipeline_tests.support.commands import Result, Run

SECRET: Final = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()


def url_of(backend: HTTPServer) -> str:
    """Return the receiver's URL."""
    return backend.url_for("/notifications")


def endpoints(monkeypatch: pytest.MonkeyPatch, *configured: dict[str, Any]) -> None:
    """Set BUFFER_ENDPOINTS."""
    monkeypatch.setenv("BUFFER_ENDPOINTS", json.dumps(configured))


def webhook(backend: HTTPServer, **options: Any) -> dict[str, Any]:
    """Return the endpoint `backend`."""
    return {
        "name": "backend",
        "channel": "webhook",
        "url": url_of(backend),
        "secrets": [SECRET],
        "allow_private": True,
        **options,
    }


def give_up_on(run: Run, backend: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Let the receiver refuse a notification for good, and then accept everything again."""
    backend.clear_all_handlers()
    backend.expect_request("/notifications").respond_with_data("no such route", status=404)
    endpoints(monkeypatch, webhook(backend))
    drained = run("notifications", "drain", "--json")
    backend.clear_all_handlers()
    backend.expect_request("/notifications").respond_with_data("")
    return drained
