"""Rich errors: ``google.rpc.Status`` in ``grpc-status-details-bin``.

Source: Google's API design guide (AIP-193, "Errors") and gRPC's richer error model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bascule._messages import packed_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf import any_pb2
    from grpclib.const import Status

#: The trailer that carries them.
DETAILS_KEY = "grpc-status-details-bin"


def encode_details(status: Status, message: str | None, details: Sequence[Any]) -> bytes:
    """Pack protobuf messages of either library.

    :raises TypeError: if a detail is no protobuf message
    """
    from google.rpc import status_pb2

    packed = status_pb2.Status(code=status.value, message=message or "")
    for detail in details:
        named = packed_in(detail)
        if named is None:
            text = f"error detail {detail!r} is no protobuf message"
            raise TypeError(text)
        packed.details.add(type_url=named[0], value=named[1])
    data: bytes = packed.SerializeToString()
    return data


def decode_details(data: bytes) -> list[Any] | None:
    """Unpack what is known here; a message of unknown type stays ``Any``.

    None if ``data`` is no ``google.rpc.Status``: an error with bad details is
    still that error.
    """
    from google.protobuf.message import DecodeError

    # The common detail types register themselves on import.
    from google.rpc import error_details_pb2, status_pb2  # noqa: F401

    try:
        status = status_pb2.Status.FromString(data)
    except DecodeError:
        return None
    return [_unpack(detail) for detail in status.details]


def _unpack(packed: any_pb2.Any) -> Any:
    from google.protobuf import symbol_database
    from google.protobuf.message import DecodeError

    pool = symbol_database.Default()
    try:
        message = pool.GetSymbol(packed.TypeName())()
        packed.Unpack(message)
    except (KeyError, DecodeError):
        return packed
    return message
