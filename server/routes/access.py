"""Who may ask for what: the API by its keys, metrics and the API's description by rules of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.admission.keys import KeyRing
from server.errors import NotFound

HEALTH_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping"})
"""Answered without a key, so that balancers and orchestrators need none."""
METRICS_PATH = "/metrics"
WATCHED_PATHS = HEALTH_PATHS | {METRICS_PATH}
"""Asked for by machines that watch the server, not by those who use it: no traces, and no lines in the log."""
DOCS_PATH = "/docs"
DOCS_ASSETS = "/docs/assets"
DOCS_PATHS = frozenset({DOCS_PATH, "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
NOTHING_HERE = "There is nothing at this address; see /docs for what there is."

DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""The pages start themselves by a line of script each; nothing comes from another host."""


@dataclass(frozen=True, slots=True)
class Access:
    """What each address asks for. Judges `scope["path"]` and the port that was dialled, never the Host header."""

    keys: KeyRing
    metrics_keys: KeyRing = field(default_factory=KeyRing)
    """The keys that /metrics takes instead of the others; none where it takes the same."""
    metrics_port: int | None = None
    """Answers /metrics and health alone; /metrics is then at no other port, and asks for no key but its own."""
    docs: Literal["keys", "open", "off"] = "keys"

    def keys_for(self, scope: Scope) -> KeyRing | None:
        """The ring that has to know the request's key; None where no key is asked for.

        Raises:
            NotFound: this port does not have that path.
        """
        path, at_metrics_port = scope["path"], self._at_metrics_port(scope)
        if at_metrics_port and path not in WATCHED_PATHS:
            raise NotFound("This port has /metrics and /health alone.")
        if path in HEALTH_PATHS or (self.docs == "open" and is_of_docs(path)):
            return None
        if path != METRICS_PATH:
            return self.keys
        if self.metrics_port is not None and not at_metrics_port:
            raise NotFound(NOTHING_HERE)
        if len(self.metrics_keys):
            return self.metrics_keys
        return None if at_metrics_port else self.keys

    def _at_metrics_port(self, scope: Scope) -> bool:
        return self.metrics_port is not None and (scope.get("server") or ("", 0))[1] == self.metrics_port


def is_of_docs(path: str) -> bool:
    """Whether an address is one of the API's description, or of what its pages are made of."""
    return path in DOCS_PATHS or path.startswith(f"{DOCS_ASSETS}/")


class DocsPolicy:
    """Has the browser hold the pages of the API's description to what this server sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_of_docs(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = DOCS_POLICY
            await send(message)

        await self._app(scope, receive, with_policy)
