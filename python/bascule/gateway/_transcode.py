"""JSON <-> protobuf for the routes that ``google.api.http`` annotations declare.

A request passes in two steps, so that middleware can run between them with the route known and
the body still untouched::

    binding, values, query = transcoder.match("GET", "/api/v1/users/7?view=FULL")
    message = transcoder.request(binding, values, query, body)     # protobuf bytes
    reply = await channel.unary(..., message)
    document = transcoder.response(binding, reply)                 # JSON bytes

``begin`` does both steps in one crossing where nothing runs in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bascule import _core
from bascule.rpc._descriptors import descriptor_set

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Binding", "Match", "Transcoder", "descriptor_set"]

#: Index of the route, the values of its path variables in the template's order (percent-decoded),
#: and the query string as it was sent, without the question mark.
Match: TypeAlias = tuple[int, tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Binding:
    """One declared route: an HTTP method and path template bound to a gRPC method."""

    index: int
    """Position in :attr:`Transcoder.bindings`; what :meth:`Transcoder.match` answers."""
    http_method: str
    """``GET``, ``POST``, ...; ``*`` takes every method."""
    template: str
    """Path template as declared, ``/api/v1/users/{id}``: bounded, so fit for metric labels."""
    rpc_path: str
    """``/user.UserService/GetUser``"""
    service: str
    """``user.UserService``"""
    method: str
    """``GetUser``"""
    variables: tuple[str, ...]
    """Field paths of the template's variables, in the order of a match's values."""
    body: str
    """Request field that the body fills; ``*`` for the whole message, empty for no body."""
    response_body: str
    """Reply field that is the answer's body; empty for the whole message."""
    input_type: str
    """Full name of the request message."""
    output_type: str
    """Full name of the reply message."""
    client_streaming: bool
    server_streaming: bool


class Transcoder:
    """The declared routes of a descriptor set, and the translation of their messages.

    Immutable and safe to share between threads.

    :param descriptor_set: a serialized ``google.protobuf.FileDescriptorSet`` with all imports
        (``protoc --include_imports --descriptor_set_out``, or :func:`descriptor_set`)
    :param services: full names of the services whose routes are declared; None for all
    :param max_depth: objects and arrays that a JSON document may nest, 1 to 128
    :param always_print_fields_with_no_presence: write proto3 scalars, lists and maps that hold
        their default value, too (``json_format``'s setting of that name)
    :raises ConfigurationError: if the set is damaged or incomplete, a template is invalid or
        names a field that the request has not, or two routes take the same requests
    """

    __slots__ = ("_core", "bindings")

    def __init__(
        self,
        descriptor_set: bytes,
        *,
        services: Iterable[str] | None = None,
        max_depth: int = 64,
        always_print_fields_with_no_presence: bool = False,
    ) -> None:
        self._core = _core.Transcoder(
            descriptor_set,
            None if services is None else list(services),
            max_depth,
            always_print_fields_with_no_presence,
        )
        #: the declared routes, in the order of files, services, methods and bindings
        self.bindings: tuple[Binding, ...] = tuple(
            Binding(index, *row) for index, row in enumerate(self._core.bindings())
        )

    def match(self, method: str, target: str) -> Match:
        """Find the route of a request.

        A literal segment wins over a variable, a variable over ``**``. ``HEAD`` is a method like
        any other: match it as ``GET`` to answer it. The path is split into segments before it is
        percent-decoded, so ``%2F`` never makes a segment.

        :param target: request target as it was sent: a path with a leading slash, perhaps a query
        :raises TranscodeError: with kind ``bad_target`` if the target is malformed: no leading
            slash, an empty, ``.`` or ``..`` segment (encoded ones too), a backslash, fragment,
            space, control or non-ASCII character, a bad percent escape, or one of a control
            character or of invalid UTF-8
        :raises RouteNotFoundError: if no route has this path
        :raises MethodNotAllowedError: if its routes take other methods only
        """
        return self._core.match(method, target)

    def request(self, binding: int, values: tuple[str, ...], query: str, body: bytes) -> bytes:
        """Translate a matched request into the protobuf bytes of the route's input message.

        A field that the path binds keeps the path's value, whatever the body says.

        :param binding: index of the route, ``values`` and ``query`` as :meth:`match` gave them
        :param body: the JSON document; empty for none, which a route accepts that takes no body or
            whose path leaves it no field to fill
        :raises TranscodeError: if the query or body do not fit the message
        """
        return self._core.request(binding, values, query, body)

    def begin(self, method: str, target: str, body: bytes) -> tuple[int, str, bytes]:
        """Match and translate in one crossing.

        :returns: index of the route, its gRPC path, the protobuf bytes
        Raises what :meth:`match` and :meth:`request` raise.
        """
        return self._core.begin(method, target, body)

    def response(self, binding: int, message: bytes) -> bytes:
        """Translate a reply's protobuf bytes into the JSON document of its route.

        :raises DecodeError: if the bytes are no such message
        :raises EncodeError: if JSON cannot carry a value of it (a NaN in ``Value``, a timestamp
            out of range, an ``Any`` of an unknown type)
        """
        return self._core.response(binding, message)

    def from_json(self, message_type: str, document: bytes) -> bytes:
        """Translate a JSON document into a message that is named, not routed to.

        :param message_type: full name in the descriptor set, ``user.User``
        :raises TranscodeError: if the document does not fit the message
        :raises LookupError: if the set has no such message
        """
        return self._core.from_json(message_type, document)

    def to_json(self, message_type: str, message: bytes) -> bytes:
        """Translate the protobuf bytes of a named message into JSON.

        :raises DecodeError: if the bytes are no such message
        :raises EncodeError: if JSON cannot carry a value of it
        :raises LookupError: if the set has no such message
        """
        return self._core.to_json(message_type, message)
