"""Who a call is made for, and whether it may be a repeated one.

The gateway verifies the caller's token and passes its subject on as ``x-bascule-subject``; it never
forwards that header from outside. A service believes it from the gateway only: over TLS from a peer
whose certificate names the gateway, without TLS from this machine (loopback, a Unix socket, or within
the process). From anybody else the header is refused, not ignored, so that a wrong set-up is seen.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bascule.errors import Status
from bascule.rpc import call_context
from bascule_shop._faults import fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bascule.rpc import CallContext

__all__ = ["IDEMPOTENCY_KEY", "SUBJECT_KEY", "Caller", "caller_of", "current_caller"]

SUBJECT_KEY = "x-bascule-subject"
"""Metadata key of the verified subject."""

IDEMPOTENCY_KEY = "idempotency-key"
"""Metadata key that the HTTP header of this name travels under."""

_GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a call says of its caller.

    :ivar subject: the user whom the gateway verified; None if the call has none
    :ivar idempotency_key: of the HTTP request; empty if it has none
    """

    subject: str | None = None
    idempotency_key: str = ""


def current_caller() -> Caller:
    """Give the caller of the call being handled.

    :raises RpcError: PERMISSION_DENIED if it names a subject without coming from the gateway
    """
    return caller_of(call_context())


def caller_of(call: CallContext) -> Caller:
    """Give the caller of a call. See :func:`current_caller`."""
    subject = call.metadata.get(SUBJECT_KEY)
    if subject is not None and not _from_gateway(call):
        raise fault(
            Status.PERMISSION_DENIED,
            "SUBJECT_NOT_TRUSTED",
            f"only the gateway may send {SUBJECT_KEY}",
            peer=call.peer,
        )
    return Caller(
        None if subject is None else str(subject), str(call.metadata.get(IDEMPOTENCY_KEY, ""))
    )


def _from_gateway(call: CallContext) -> bool:
    if call.identity is not None:
        return _GATEWAY in _names(call.identity)
    host = call.peer.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return call.peer.startswith(("unix:", "memory:"))


def _names(certificate: Mapping[str, Any]) -> set[str]:
    return {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
