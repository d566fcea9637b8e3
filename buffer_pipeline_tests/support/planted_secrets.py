"""Secrets for every setting, and servers that repeat them in their answers."""

import json
import socket
from base64 import b64encode
from typing import Any, Final
from urllib.parse import quote

from aiosmtpd.smtp import AuthResult
from sqlalchemy import Engine, text
from werkzeug import Request, Response

from buffer_pipeline.notifications.outbox import list_deliveries

DATABASE: Final = "Db-Swordfish+1/7"
SIGNING: Final = "whsec_" + b64encode(b"Signing-Swordfish-of-32-bytes-ok").decode()
SMTP: Final = "Smtp-Swordfish+2/7"
APPRISE: Final = "AppriseSwordfish37"
QUERY: Final = "Query-Swordfish+4/7"
SECRETS: Final = (DATABASE, SIGNING, SIGNING.removeprefix("whsec_"), SMTP, APPRISE, QUERY, "Swordfish")
"""The word that all planted secrets contain. No output may show it."""


def closed_port() -> int:
    """Return a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def endpoints(*, webhook: str, smtp_port: int, **smtp: Any) -> str:
    """Return BUFFER_ENDPOINTS with a secret in every option that has one."""
    token = quote(QUERY, safe="")
    return json.dumps(
        [
            {
                "name": "backend",
                "channel": "webhook",
                "url": f"{webhook}?token={token}",
                "secrets": [SIGNING],
                "allow_private": True,
                "timeout_seconds": 2,
            },
            {
                "name": "mail",
                "channel": "email",
                "host": "localhost",
                "port": smtp_port,
                "sender": "payments@market.example",
                "username": "market",
                "password": SMTP,
                "timeout_seconds": 2,
                **smtp,
            },
        ]
    )


class Talkative:
    """A mail server that refuses every login and repeats it in its answer."""

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> AuthResult:
        """Refuse with the password, decoded and as it was sent."""
        plain = data.password.decode()
        sent = b64encode(f"\0market\0{plain}".encode()).decode()
        message = f"535 5.7.8 no such login {plain} {b64encode(plain.encode()).decode()} {sent}"
        return AuthResult(success=False, handled=False, message=message)


def repeat(request: Request) -> Response:
    """Refuse with everything that was sent."""
    return Response(f"{request.url} {request.query_string!r} {dict(request.args)}", status=503)


def with_password(url: str) -> str:
    """Return the URL of the books with a password, which the tests' server does not require."""
    return url.replace("//buffer@", f"//buffer:{quote(DATABASE, safe='')}@")


def reasons(engine: Engine) -> str:
    """Return all stored reasons of deliveries and pauses."""
    with engine.begin() as connection:
        pauses = connection.execute(text("SELECT endpoint, reason FROM buffer.endpoint_pause")).all()
        return f"{list_deliveries(connection)} {pauses}"


COMMANDS: Final = (
    ("hold", "list"),
    ("release", "--verbose"),
    ("release", "--dry-run", "--verbose"),
    ("reconcile",),
    ("migrate",),
    ("report", "--days", "1"),
    ("notifications", "drain", "--seconds", "5"),
    ("notifications", "list"),
    ("notifications", "test-webhook", "https://localhost:1/hook"),
    ("dev", "--port", "1"),
    ("hold", "nonsense"),
)
