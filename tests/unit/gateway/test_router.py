"""The router of Python handlers, alone and merged with declared routes."""

from __future__ import annotations

from typing import assert_type

import pytest
from tests.oracle.library import descriptor_set

from bascule.errors import (
    ConfigurationError,
    MethodNotAllowedError,
    RouteNotFoundError,
    TranscodeError,
)
from bascule.gateway._router import Found, Router
from bascule.gateway._transcode import Binding, Transcoder


def test_handlers_are_found_by_method_and_path() -> None:
    router: Router[str] = Router()
    router.get("/", "root")
    router.get("/users/{id}", "get")
    router.put("/users/{id}", "put")
    router.patch("/users/{id}", "patch")
    router.delete("/users/{id}", "delete")
    router.post("/users", "post")
    router.route("OPTIONS", "/users", "options")
    router.get("/files/{path=**}", "file")
    router.post("/users/{id}:block", "block")
    for method, target, endpoint in [
        ("GET", "/", "root"),
        ("GET", "/users/7", "get"),
        ("PUT", "/users/7", "put"),
        ("PATCH", "/users/7", "patch"),
        ("DELETE", "/users/7", "delete"),
        ("POST", "/users", "post"),
        ("OPTIONS", "/users", "options"),
        ("GET", "/files/a/b", "file"),
        ("POST", "/users/7:block", "block"),
    ]:
        found = router.match(method, target)
        assert_type(found, Found[str])
        assert found.endpoint == endpoint
    with pytest.raises(RouteNotFoundError):
        router.match("GET", "/nope")
    with pytest.raises(MethodNotAllowedError) as caught:
        router.match("GET", "/users")
    assert caught.value.allowed == ("OPTIONS", "POST")
    with pytest.raises(TranscodeError, match=r"\.\."):
        router.match("GET", "/users/..")


def test_a_match_carries_what_a_handler_needs() -> None:
    router: Router[int] = Router()
    router.get("/a/{b}/c/{d=e/*}", 1)
    found = router.match("GET", "/a/x%20y/c/e/z?q=1")
    assert found.params == {"b": "x y", "d": "e/z"}
    assert found.values == ("x y", "e/z")
    assert found.variables == ("b", "d")
    assert found.template == "/a/{b}/c/{d=e/*}"
    assert found.query == "q=1"


def test_groups_put_their_prefix_before() -> None:
    router: Router[str] = Router()
    api = router.group("/api/v1")
    api.get("/users", "users")
    api.get("", "index")
    tenants = api.group("/tenants/{tenant}")
    tenants.post("/jobs/{id}:run", "run")
    assert router.match("GET", "/api/v1/users").endpoint == "users"
    assert router.match("GET", "/api/v1").template == "/api/v1"
    found = router.match("POST", "/api/v1/tenants/a/jobs/7:run")
    assert found.params == {"tenant": "a", "id": "7"}


@pytest.mark.parametrize("prefix", ["", "/", "api", "/api/"])
def test_other_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="start with a slash"):
        Router[str]().group(prefix)


def test_declared_routes_and_handlers_share_the_table() -> None:
    transcoder = Transcoder(descriptor_set())
    router: Router[str] = Router(transcoder)
    router.get("/healthz", "health")
    router.delete("/v1/shelves/{shelf}", "drop")
    router.get("/v1/shelves/new", "form")
    found = router.match("GET", "/v1/shelves/7?x=1")
    assert isinstance(found.endpoint, Binding)
    assert found.endpoint is transcoder.bindings[found.endpoint.index]
    assert found.params == {"id": "7"}
    assert router.match("GET", "/healthz").endpoint == "health"
    assert router.match("GET", "/v1/shelves/new").endpoint == "form"
    assert router.match("DELETE", "/v1/shelves/7").endpoint == "drop"
    with pytest.raises(MethodNotAllowedError) as caught:
        router.match("PUT", "/v1/shelves/7")
    assert caught.value.allowed == ("DELETE", "GET")


def test_conflicts_name_both_routes() -> None:
    def get_shelf() -> None: ...

    def other() -> None: ...

    router: Router[object] = Router(Transcoder(descriptor_set()))
    with pytest.raises(ConfigurationError) as caught:
        router.get("/v1/shelves/{name}", get_shelf)
    text = str(caught.value)
    assert "GET /v1/shelves/{name}" in text
    assert "get_shelf" in text
    assert "/v1/shelves/{id}" in text
    assert "/library.Library/GetShelf" in text
    router.get("/mine/{a}", get_shelf)
    with pytest.raises(ConfigurationError, match=r"other.*takes the requests.*get_shelf"):
        router.get("/mine/{b=*}", other)
    router.get("/mine/{b}:x", other)
    router.post("/mine/{b}", other)
    router.get("/mine/{b=**}", other)


@pytest.mark.parametrize("method", ["", "get", "GE T", "GET\n"])
def test_methods_are_checked(method: str) -> None:
    with pytest.raises(ConfigurationError, match="no HTTP method"):
        Router[int]().route(method, "/x", 1)


@pytest.mark.parametrize("template", ["", "x", "/x/", "/{", "/{a}/{a}", "/**/x", "/%zz", "/.."])
def test_templates_are_checked(template: str) -> None:
    router: Router[int] = Router()
    with pytest.raises(ConfigurationError, match="path template"):
        router.get(template, 1)
    router.get("/x", 2)
    assert router.match("GET", "/x").endpoint == 2


def test_a_literal_wins_over_a_variable_and_that_over_the_rest() -> None:
    router: Router[str] = Router()
    router.get("/{a=**}", "rest")
    router.get("/{a}/{b}", "two")
    router.get("/x/{b}", "literal first")
    router.get("/{a}/y", "literal last")
    for target, endpoint in [
        ("/", "rest"),
        ("/q", "rest"),
        ("/q/r", "two"),
        ("/q/y", "literal last"),
        ("/x/y", "literal first"),
        ("/x/q", "literal first"),
        ("/x/y/z", "rest"),
    ]:
        assert router.match("GET", target).endpoint == endpoint, target
