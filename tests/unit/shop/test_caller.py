"""A subject is believed from the gateway only."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import MultiDict

from bascule.errors import RpcError, Status
from bascule.rpc import CallContext
from bascule_shop._caller import Caller, caller_of


class Call(CallContext):
    """A call with a chosen peer."""

    def __init__(self, peer: str, names: tuple[str, ...] | None, **metadata: str) -> None:
        super().__init__("/order.OrderService/CreateOrder", peer)
        self._metadata = MultiDict(
            {name.replace("_", "-"): value for name, value in metadata.items()}
        )
        self._names = names

    @property
    def identity(self) -> dict[str, Any] | None:
        if self._names is None:
            return None
        return {"subjectAltName": tuple(("DNS", name) for name in self._names)}


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        ("127.0.0.1:4000", None),
        ("[::1]:4000", None),
        ("unix:/run/shop.sock", None),
        ("memory:order", None),
        ("192.0.2.7:4000", ("gateway", "gateway.shop.svc")),
    ],
)
def test_the_gateways_subject_is_believed(peer: str, names: tuple[str, ...] | None) -> None:
    call = Call(peer, names, x_bascule_subject="usr_ada", idempotency_key="k")
    assert caller_of(call) == Caller("usr_ada", "k")


@pytest.mark.parametrize(
    ("peer", "names"),
    [
        ("192.0.2.7:4000", None),
        ("[2001:db8::1]:4000", None),
        ("127.0.0.1:4000", ("order",)),
        ("192.0.2.7:4000", ()),
        ("", None),
    ],
)
def test_anybody_elses_subject_is_refused(peer: str, names: tuple[str, ...] | None) -> None:
    with pytest.raises(RpcError, match="only the gateway") as caught:
        caller_of(Call(peer, names, x_bascule_subject="usr_ada"))
    assert caught.value.status is Status.PERMISSION_DENIED


def test_a_call_without_a_subject_is_anybodys() -> None:
    assert caller_of(Call("192.0.2.7:4000", None)) == Caller()
