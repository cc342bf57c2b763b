"""From errors to answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from bascule.errors import (
    AuthenticationError,
    BreakerOpenError,
    KeysUnavailableError,
    MethodNotAllowedError,
    NoEndpointError,
    RateLimitedError,
    RouteNotFoundError,
    RpcError,
    Status,
    TranscodeError,
    TransportError,
)
from bascule.gateway._problems import http_status, problem_for, problem_of_listener


def answer(error: Exception) -> tuple[int, dict[str, str], dict[str, Any]]:
    response = problem_for(error)
    assert response is not None
    headers = dict(response.headers)
    assert len(headers) == len(response.headers)
    assert headers["content-type"] == "application/json"
    return response.status, headers, json.loads(response.body)


@pytest.mark.parametrize("status", list(Status))
def test_each_status_has_its_http_status_and_body(status: Status) -> None:
    http, headers, body = answer(RpcError(status, "why"))
    assert http == http_status(status)
    message = "why" if status is not Status.UNAVAILABLE else "the service cannot be reached"
    assert body == {"code": status.value, "message": message, "details": []}
    assert ("www-authenticate" in headers) == (http == 401)


def test_details_are_rendered_as_any() -> None:
    details = [
        BadRequest(
            field_violations=[BadRequest.FieldViolation(field="email", description="taken")]
        ),
        ErrorInfo(reason="USER_MISSING", domain="shop"),
    ]
    _, _, body = answer(RpcError(Status.INVALID_ARGUMENT, "no", details))
    assert body["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "email", "description": "taken"}],
        },
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "USER_MISSING",
            "domain": "shop",
        },
    ]


def test_a_detail_of_unknown_type_keeps_its_bytes() -> None:
    unknown = AnyMessage(type_url="type.googleapis.com/nobody.Knows", value=b"\x00\xff")
    _, _, body = answer(RpcError(Status.ABORTED, "no", [unknown]))
    assert body["details"] == [{"@type": "type.googleapis.com/nobody.Knows", "value": "AP8="}]


def test_retry_info_becomes_a_header() -> None:
    details = [RetryInfo(retry_delay=Duration(seconds=1, nanos=1))]
    http, headers, body = answer(RpcError(Status.UNAVAILABLE, "later", details))
    assert (http, headers["retry-after"], body["message"]) == (503, "2", "later")


def test_a_field_at_fault_is_named() -> None:
    http, _, body = answer(TranscodeError("wrong_type", "items[2].quantity", "is no number", 17))
    assert (http, body["code"]) == (400, 3)
    assert "items[2].quantity" in body["message"]
    assert body["details"][0]["fieldViolations"] == [
        {"field": "items[2].quantity", "description": "is no number"}
    ]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (BreakerOpenError("orders", 12.3), "13"),
        (BreakerOpenError("orders", None), "1"),
        (RateLimitedError("orders", 0.01), "1"),
        (NoEndpointError("orders"), "1"),
        (KeysUnavailableError("https://issuer/jwks", 0.0), "1"),
        (TransportError("10.0.0.1 refused"), "1"),
    ],
)
def test_what_was_never_sent_may_be_tried_again(error: Exception, seconds: str) -> None:
    http, headers, body = answer(error)
    assert (http, headers["retry-after"], body["code"]) == (503, seconds, 14)
    assert not {"orders", "issuer", "10.0.0.1"} & set(body["message"].replace("/", " ").split())


def test_the_rest() -> None:
    assert answer(RouteNotFoundError("/x"))[0] == 404
    http, headers, _ = answer(MethodNotAllowedError("PUT", ("GET", "POST")))
    assert (http, headers["allow"]) == (405, "GET, HEAD, POST")
    assert answer(TimeoutError())[0] == 504
    http, headers, _ = answer(AuthenticationError("expired", 'the "token"\\ has expired'))
    assert http == 401
    assert headers["www-authenticate"] == (
        'Bearer realm="bascule", error="invalid_token", error_description="the \'token\'/ has expired"'
    )
    assert problem_for(ValueError("a fault of ours")) is None


@pytest.mark.parametrize(
    ("word", "http"),
    [
        ("malformed", 400),
        ("body_too_large", 413),
        ("headers_too_large", 431),
        ("timeout", 408),
        ("?", 400),
    ],
)
def test_what_the_listener_could_not_take(word: str, http: int) -> None:
    assert problem_of_listener(word).status == http
