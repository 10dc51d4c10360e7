"""A proxy between scripts and the broker, whose network fails as a test says."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

PATIENCE = 30.0  # seconds
CONFIRM = b"\x00\x3c\x00\x50"  # basic.ack, a frame of 21 bytes


class Proxy:
    """Takes any number of connections, at `url`, to the broker of the URL given.

    `state` is one of:
    - "through": all passes;
    - "silent": connections are accepted, and what is sent vanishes, as with a
      broker that is frozen, or a cable that is cut;
    - "deaf": what the script sends arrives, and no answer comes back;
    - "unconfirmed": all passes but what the broker says of a message;
    - "greeting": a connection is closed after the broker's first words;
    - "closed": connections are accepted and closed at once.
    `attempts` has the time of each connection, in seconds of time.monotonic(); `seen`
    is what somebody could read who watches the network.
    """

    def __init__(self, url: str, state: str = "through") -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        user = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        self.url = f"amqp://{user}@localhost:{port}{parts.path}"
        self.state = state
        self.attempts: list[float] = []
        self.seen = bytearray()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._cutting = threading.Lock()
        self._run(self._serve)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in self._sockets:
            each.close()

    def _run(self, what: object, *arguments: object) -> None:
        self._threads.append(threading.Thread(target=what, args=arguments, daemon=True))  # type: ignore[arg-type]
        self._threads[-1].start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.attempts.append(time.monotonic())
            with self._cutting:
                self._sockets.append(client)
            if self.state == "closed":
                client.close()
                continue
            try:
                broker = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._sockets.append(broker)
            for each in (client, broker):  # else a message may take 40 ms
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._run(self._pump, client, broker, ("through", "deaf", "unconfirmed", "greeting"))
            self._run(self._pump, broker, client, ("through", "unconfirmed", "greeting"))

    def _pump(self, source: socket.socket, target: socket.socket, passes: tuple[str, ...]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.seen += data
                confirm = len(data) == 21 and data[7:11] == CONFIRM
                if self.state in passes and not (confirm and self.state == "unconfirmed"):
                    target.sendall(data)
                if self.state == "greeting" and b"capabilities" in data:
                    break
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self, state: str | None = None) -> None:
        """Cut all connections; those that come after it are in that state.

        Nothing more passes on the old ones, whatever the state allows.
        """
        with self._cutting:
            for each in self._sockets:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self.state = state or self.state
