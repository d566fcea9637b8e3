"""A receiver on a raw socket, which need not speak HTTP."""

import socket
import threading


class RawReceiver:
    """Answers each request with the same bytes, then keeps the connection open."""

    def __init__(self, answer: bytes, *, then: bytes = b"", read: bool = True) -> None:
        self.connections = self.requests = self.sent = 0
        self._answer, self._then, self._read = answer, then, read
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/hook"

    def __enter__(self) -> "RawReceiver":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                while self._read and (head := self._request(connection)):
                    assert head
                    self.requests += 1
                    connection.sendall(self._answer)
                    while self._then:
                        connection.sendall(self._then)
                        self.sent += len(self._then)
                if not self._read:
                    connection.sendall(self._answer)
                    connection.recv(1 << 20)
            except OSError:
                return

    def _request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = connection.recv(1 << 16)
            if not chunk:
                return b""
            data += chunk
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        while len(body) < length:
            body += connection.recv(1 << 16)
        return head
