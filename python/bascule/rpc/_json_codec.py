"""Messages to JSON and back, for calls whose content type says so.

Where the class has a descriptor, the Rust core translates between JSON and the class's own bytes.
Betterproto2's classes have one if they were generated with ``google_protobuf_descriptors``; the
others go through betterproto2's ``to_json`` and ``from_json``. Both ways fields that the message
has not are passed over, so that a client may know more than the server.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import betterproto2
from google.protobuf.descriptor import Descriptor, FileDescriptor

from bascule import _core
from bascule.errors import EncodeError, RpcError, Status, TranscodeError
from bascule.rpc._codec import codec_for
from bascule.rpc._descriptors import descriptor_set

if TYPE_CHECKING:
    from bascule.rpc._codec import Codec

__all__ = ["json_codec_for"]

#: Objects and arrays that a document may nest.
MAX_DEPTH = 64


def json_codec_for(message_type: type[Any]) -> Codec[Any]:
    """Find the codec of a message class.

    Its ``decode`` raises RpcError INVALID_ARGUMENT if the document does not fit the message.
    """
    descriptor = getattr(message_type, "DESCRIPTOR", None)
    if isinstance(descriptor, Descriptor):
        return _TranscodingCodec(message_type, descriptor)
    if isinstance(message_type, type) and issubclass(message_type, betterproto2.Message):
        return _Betterproto2Codec(message_type)
    return _NoCodec()


@functools.cache
def _transcoder(file: FileDescriptor) -> _core.Transcoder:
    """Messages of a file and of all that it imports; no routes."""
    return _core.Transcoder(descriptor_set(file), [], MAX_DEPTH, False, True)


class _TranscodingCodec:
    """By the descriptor."""

    def __init__(self, message_type: type[Any], descriptor: Descriptor) -> None:
        self._codec = codec_for(message_type)
        self._file = descriptor.file
        self._name = descriptor.full_name

    def encode(self, message: Any, /) -> bytes:
        return _transcoder(self._file).to_json(self._name, self._codec.encode(message))

    def decode(self, data: bytes, /) -> Any:
        try:
            encoded = _transcoder(self._file).from_json(self._name, data)
        except TranscodeError as error:
            raise _bad_request(self._name, error) from error
        return self._codec.decode(encoded)


class _Betterproto2Codec:
    """betterproto2's own."""

    def __init__(self, message_type: type[betterproto2.Message]) -> None:
        self._type = message_type

    def encode(self, message: Any, /) -> bytes:
        if not isinstance(message, self._type):
            name = self._type.__name__
            raise EncodeError(
                f"cannot encode {name}: got an object of type {type(message).__name__}"
            )
        return message.to_json().encode()

    def decode(self, data: bytes, /) -> Any:
        # betterproto2 raises whatever its parts raise, and RecursionError for deep nesting.
        try:
            return self._type.from_json(data, ignore_unknown_fields=True)
        except Exception as error:
            raise _bad_request(self._type.__name__, error) from error


class _NoCodec:
    """For messages that are passed on as bytes."""

    def encode(self, message: Any, /) -> bytes:
        raise self._refusal()

    def decode(self, data: bytes, /) -> Any:
        raise self._refusal()

    @staticmethod
    def _refusal() -> RpcError:
        text = "this method has no JSON: its messages are passed on as bytes"
        return RpcError(Status.UNIMPLEMENTED, text)


def _bad_request(name: str, error: Exception) -> RpcError:
    return RpcError(Status.INVALID_ARGUMENT, f"the request is no {name}: {error}")
