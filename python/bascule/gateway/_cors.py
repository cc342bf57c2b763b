"""Pages of other origins: what a browser asks before it lets them call.

Source: the Fetch standard, "CORS protocol".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.net import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.gateway._config import CorsConfig
    from bascule.gateway._exchange import Exchange

__all__ = ["Cors"]

_VARY = ("vary", "origin")


class Cors:
    """Answers preflights, and tells browsers which pages may read answers.

    :param config: which pages may
    """

    def __init__(self, config: CorsConfig) -> None:
        self._origins = None if "*" in config.allow_origins else frozenset(config.allow_origins)
        self._common = [("access-control-allow-credentials", "true")] * config.allow_credentials
        self._exposed = [("access-control-expose-headers", ", ".join(config.expose_headers))]
        self._allowed = [
            ("access-control-allow-headers", ", ".join(config.allow_headers)),
            ("access-control-max-age", str(int(config.max_age))),
        ]

    def preflight(
        self, exchange: Exchange, match: Callable[[str, str], object]
    ) -> HttpResponse | None:
        """Answer if it is one; None if not. Its own headers come from :meth:`headers`.

        :param match: raises if there is no such route
        :raises TranscodeError, RouteNotFoundError, MethodNotAllowedError: if ``match`` does
        """
        request, asked = exchange.request, exchange.headers.get("access-control-request-method")
        if request.method != "OPTIONS" or asked is None or "origin" not in exchange.headers:
            return None
        match("GET" if asked == "HEAD" else asked, request.target)
        if not self._permits(exchange):
            return HttpResponse(204)
        return HttpResponse(204, [("access-control-allow-methods", asked), *self._allowed])

    def headers(self, exchange: Exchange) -> list[tuple[str, str]]:
        """What every answer tells browsers."""
        if not self._permits(exchange):
            return [] if self._origins is None else [_VARY]
        if self._origins is None:
            return [("access-control-allow-origin", "*"), *self._exposed]
        origin = ("access-control-allow-origin", exchange.headers["origin"])
        return [origin, _VARY, *self._common, *self._exposed]

    def _permits(self, exchange: Exchange) -> bool:
        origin = exchange.headers.get("origin")
        return origin is not None and (self._origins is None or origin in self._origins)
