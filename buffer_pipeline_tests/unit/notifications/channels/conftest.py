"""Receivers for the channels."""

import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from sqlalchemy import Engine, create_engine

from buffer_pipeline_tests.support.mail import Mailbox, Serve


@pytest.fixture
def mailbox() -> Mailbox:
    """The behaviour of the test's mail servers."""
    return Mailbox()


@pytest.fixture
def serve(mailbox: Mailbox) -> Iterator[Serve]:
    """A function that starts a server on a free port and returns the port."""
    controllers: list[Controller] = []

    def start(*, server_tls: ssl.SSLContext | None = None, **options: Any) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        controller = Controller(mailbox, hostname="127.0.0.1", port=port, ssl_context=server_tls, **options)
        controller.start()
        controllers.append(controller)
        return port

    yield start
    for controller in controllers:
        controller.stop(no_assert=True)


@pytest.fixture(scope="module")
def no_database() -> Engine:
    """An engine that the channel does not use."""
    return create_engine("postgresql+psycopg://nowhere.invalid/books")
