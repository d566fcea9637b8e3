"""Receivers for the notification commands."""

import pytest
from pytest_httpserver import HTTPServer


@pytest.fixture
def backend(httpserver: HTTPServer) -> HTTPServer:
    """A backend that accepts notifications."""
    httpserver.expect_request("/notifications", method="POST").respond_with_data("")
    return httpserver
