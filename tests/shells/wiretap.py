"""A proxy between a script and the broker, to see and to time what passes.

It counts what the script publishes, and it can hold back the broker's confirms
and let them through as a test says. It never says anything that the broker did
not say; only when, and how many in one frame.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from urllib.parse import urlsplit

from shells.running import PATIENCE

PUBLISH, ACK = (60, 40), (60, 80)
METHOD, END = 1, b"\xce"


def frames(source: socket.socket) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The frames that come in, each with its class and method; (0, 0) for others."""
    with source.makefile("rb") as stream:
        while head := stream.read(7):
            if head.startswith(b"AMQP"):
                yield head + stream.read(1), (0, 0)
                continue
            kind, _, size = struct.unpack(">BHI", head)
            rest = stream.read(size + 1)
            if len(rest) < size + 1:
                return
            yield head + rest, struct.unpack(">HH", rest[:4]) if kind == METHOD else (0, 0)


class Wiretap:
    """Takes one connection, on one channel, to the broker of `url`.

    `published` counts the script's messages, `told` those that it knows to be
    settled; `most` is the greatest difference of the two that there has been.
    With a `delay`, in seconds, all that the broker says comes that much later, as
    if it were far away.
    """

    def __init__(self, url: str, holding: bool = True, delay: float = 0.0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 5672)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"amqp://guest:guest@localhost:{port}{parts.path}"
        self.published = self.most = 0
        self.acked: set[int] = set()  # by the broker
        self.told: set[int] = set()
        self.holding = holding
        self.delay = delay
        self._late: SimpleQueue[tuple[float, bytes, tuple[int, int]] | None] = SimpleQueue()
        self._change = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Wiretap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in self._sockets:
            each.close()

    def _serve(self) -> None:
        with suppress(OSError):
            self._client, _ = self._listener.accept()
            self._broker = socket.create_connection(self._target)
            self._sockets = [self._client, self._broker]
            self._threads.append(threading.Thread(target=self._upstream, daemon=True))
            self._threads[-1].start()
            self._downstream()

    def _upstream(self) -> None:
        with suppress(OSError):
            for frame, method in frames(self._client):
                if method == PUBLISH:
                    with self._change:
                        self.published += 1
                        self.most = max(self.most, self.published - len(self.told))
                        self._change.notify_all()
                self._broker.sendall(frame)
        self.cut()

    def _downstream(self) -> None:
        self._threads.append(threading.Thread(target=self._deliver, daemon=True))
        self._threads[-1].start()
        with suppress(OSError):
            for frame, method in frames(self._broker):
                self._late.put((time.monotonic() + self.delay, frame, method))
        self._late.put(None)

    def _deliver(self) -> None:
        with suppress(OSError):
            while late := self._late.get():
                due, frame, method = late
                time.sleep(max(0.0, due - time.monotonic()))
                with self._change:
                    if method == ACK:
                        tag, multiple = struct.unpack(">QB", frame[11:20])
                        tags = self._upto(tag) if multiple else {tag}
                        self.acked |= tags
                        if not self.holding:
                            self.told |= tags
                        self._change.notify_all()
                    if method != ACK or not self.holding:
                        self._client.sendall(frame)
        self.cut()

    def _upto(self, tag: int) -> set[int]:
        return set(range(1, tag + 1))

    def expect(self, published: int) -> None:
        """Wait until so many are published, and see that there are no more."""
        with self._change:
            there = self._change.wait_for(lambda: self.published >= published, PATIENCE)
            assert there, f"{self.published} published, not {published}"
        time.sleep(0.3)  # it would publish more by now, if it did
        assert self.published == published

    def tell(self, tag: int, multiple: bool = False) -> None:
        """Let the confirm of a message through, or of all up to it in one frame."""
        tags = self._upto(tag) if multiple else {tag}
        with self._change:
            there = self._change.wait_for(lambda: tags <= self.acked, PATIENCE)
            assert there, f"the broker has confirmed {sorted(self.acked)}, not {tag}"
            self.told |= tags
            payload = struct.pack(">HHQB", *ACK, tag, multiple)
            self._client.sendall(struct.pack(">BHI", METHOD, 1, len(payload)) + payload + END)

    def open(self) -> None:
        """Let all confirms through, from now on."""
        with self._change:
            for tag in sorted(self.acked - self.told):
                self.tell(tag)
            self.holding = False

    def cut(self) -> None:
        """Cut the line."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
