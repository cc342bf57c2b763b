"""A typed router for Python handlers, on the engine that matches the declared routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast

from bascule import _core
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from bascule.gateway._transcode import Binding, Transcoder

__all__ = ["Found", "Group", "Router"]

HandlerT = TypeVar("HandlerT")


class Found(NamedTuple, Generic[HandlerT]):
    """What :meth:`Router.match` answers."""

    endpoint: Binding | HandlerT
    """The declared route, or the handler given with the route."""
    values: tuple[str, ...]
    """Values of the path variables, percent-decoded, in the template's order."""
    query: str
    """Query string as it was sent, without the question mark."""
    template: str
    """Path template of the route: bounded, so fit for logs and metric labels."""
    variables: tuple[str, ...]
    """Names of the path variables, in the order of ``values``."""

    @property
    def params(self) -> dict[str, str]:
        """The path variables by name."""
        return dict(zip(self.variables, self.values, strict=True))


class _Routes(Generic[HandlerT]):
    """Verbs shared by the router and its groups."""

    def route(self, method: str, template: str, handler: HandlerT) -> None:
        """Add a route.

        :param method: HTTP method, upper case; ``*`` takes every method
        :param template: path in the syntax of ``google.api.http``: ``/files/{path=**}``,
            ``/users/{id}``, ``/jobs/{id}:cancel``
        :raises ConfigurationError: if the template is invalid, or another route, declared or
            added, takes the same requests
        """
        raise NotImplementedError

    def get(self, template: str, handler: HandlerT) -> None:
        """Add a GET route: see :meth:`route`."""
        self.route("GET", template, handler)

    def post(self, template: str, handler: HandlerT) -> None:
        """Add a POST route: see :meth:`route`."""
        self.route("POST", template, handler)

    def put(self, template: str, handler: HandlerT) -> None:
        """Add a PUT route: see :meth:`route`."""
        self.route("PUT", template, handler)

    def patch(self, template: str, handler: HandlerT) -> None:
        """Add a PATCH route: see :meth:`route`."""
        self.route("PATCH", template, handler)

    def delete(self, template: str, handler: HandlerT) -> None:
        """Add a DELETE route: see :meth:`route`."""
        self.route("DELETE", template, handler)

    def group(self, prefix: str) -> Group[HandlerT]:
        """A view on the router that puts ``prefix`` before each template.

        :param prefix: path that starts with a slash and ends without one; may hold variables
        :raises ConfigurationError: if it does not
        """
        raise NotImplementedError


class Group(_Routes[HandlerT]):
    """Routes under one prefix: made by :meth:`Router.group`."""

    def __init__(self, router: Router[HandlerT], prefix: str) -> None:
        self._router = router
        self._prefix = prefix

    def route(self, method: str, template: str, handler: HandlerT) -> None:
        """Add a route whose template follows the group's prefix: see :meth:`Router.route`."""
        self._router.route(method, self._prefix + template, handler)

    def group(self, prefix: str) -> Group[HandlerT]:
        """A group inside this one."""
        return self._router.group(self._prefix + prefix)


class Router(_Routes[HandlerT]):
    """Finds the declared route or the handler of a request.

    :param transcoder: whose declared routes come first; None for handlers only
    """

    def __init__(self, transcoder: Transcoder | None = None) -> None:
        self._table = _core.RouteTable()
        self._entries: list[tuple[Binding | HandlerT, str, tuple[str, ...]]] = []
        for binding in () if transcoder is None else transcoder.bindings:
            self._add(binding.http_method, binding.template, binding, binding.rpc_path)

    def route(self, method: str, template: str, handler: HandlerT) -> None:
        """Add a route: see :meth:`_Routes.route`."""
        self._add(method, template, handler, _name(handler))

    def group(self, prefix: str) -> Group[HandlerT]:
        """Routes under a prefix: see :meth:`_Routes.group`."""
        if not prefix.startswith("/") or prefix.endswith("/"):
            message = f"group prefix {prefix!r} must start with a slash and end without one"
            raise ConfigurationError(message)
        return Group(self, prefix)

    def match(self, method: str, target: str) -> Found[HandlerT]:
        """Find the endpoint of a request, by the rules of :meth:`Transcoder.match`.

        :raises TranscodeError: with kind ``bad_target`` if the target is malformed
        :raises RouteNotFoundError: if no route has this path
        :raises MethodNotAllowedError: if its routes take other methods only
        """
        index, values, query = self._table.match(method, target)
        endpoint, template, variables = self._entries[index]
        return Found(endpoint, values, query, template, variables)

    def _add(self, method: str, template: str, endpoint: Binding | HandlerT, owner: str) -> None:
        variables = self._table.add(method, template, owner)
        self._entries.append((endpoint, template, variables))


def _name(handler: object) -> str:
    return cast("str", getattr(handler, "__qualname__", None) or repr(handler))
