"""TLS certificates of servers."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """A certificate authority. Clients trust its `file`."""

    ca: trustme.CA
    file: Path

    def server_tls(self) -> ssl.SSLContext:
        """Return the TLS context of a server named localhost."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("localhost").configure_cert(context)
        return context
