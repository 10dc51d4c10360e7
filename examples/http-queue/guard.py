"""guard.py: who may call the API, and how much they may send."""

import hmac
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from desk import Settings, problem
from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MESSAGE_BYTES = 2**20
UPLOADS = "/v1/uploads"
# What takes the token; the page and its parts are for anybody, and ask for it.
CLOSED = ("/v1/", "/metrics")
LOOKED_AT = {b"host", b"origin", b"content-length", b"authorization"}


class Guard:
    """In front of all routes, and so for each of them.

    Without the second check, any web site that you visit could post a file to
    localhost, or, with a name of its own for 127.0.0.1, read the answers.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._hosts: dict[str, bool] = {}

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {
            name: value.decode("latin-1")
            for name, value in scope["headers"]
            if name in LOOKED_AT
        }
        path = scope["path"]
        upload = path == UPLOADS
        limit = self.settings.max_upload_bytes if upload else MESSAGE_BYTES
        for refusal in self._refusals(headers, path, limit):
            return await refusal(scope, receive, send)
        taken = 0

        async def counting() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, f"At most {limit:,} bytes.")
            return message

        await self.app(scope, counting, send)

    def _refusals(
        self, headers: dict[bytes, str], path: str, limit: int
    ) -> Iterator[Any]:
        host = headers.get(b"host", "")
        if host not in self._hosts:
            if len(self._hosts) > 1_000:
                self._hosts.clear()
            self._hosts[host] = self._known(host)
        if not self._hosts[host]:
            hint = f"Start with --name {name_of(host)}"
            yield problem(403, "Unknown host", hint)
        origin = headers.get(b"origin", "")
        if origin and origin.partition("://")[2] != host:
            yield problem(403, "Not from another site's page", origin)
        if self.settings.token and path.startswith(CLOSED):
            scheme, _, told = headers.get(b"authorization", "").partition(" ")
            token = self.settings.token.encode()
            right = hmac.compare_digest(told.strip().encode(), token)
            if scheme.lower() != "bearer" or not right:
                title = "This API wants Authorization: Bearer TOKEN"
                yield problem(401, title)
        length = headers.get(b"content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            yield problem(413, "Too much at once", f"At most {limit:,} bytes.")

    def _known(self, host: str) -> bool:
        hosts = self.settings.hosts
        return "*" in hosts or name_of(host) in hosts


def name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
