"""Names of compressions."""

from __future__ import annotations

from bascule import _core
from bascule.errors import ConfigurationError

#: The headers by which a call says how its messages are compressed, and how the replies may be.
ENCODING, ACCEPT_ENCODING = "grpc-encoding", "grpc-accept-encoding"

IDENTITY = "identity"


def require_compression(name: str | None) -> None:
    """See to it that the core knows a name.

    :raises ConfigurationError: if it is unknown
    """
    if name is not None and name != IDENTITY and name not in _core.ENCODINGS:
        expected = ", ".join((IDENTITY, *_core.ENCODINGS))
        message = f"compression {name!r}: expected one of {expected}"
        raise ConfigurationError(message)
