"""Raw request targets: which route and values they give, or why they give none.

The routes are those of ``tests/protos/transcode.proto``.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.library import descriptor_set

from bascule.errors import MethodNotAllowedError, RouteNotFoundError, TranscodeError
from bascule.gateway._transcode import Transcoder

TRANSCODER = Transcoder(descriptor_set())

SHELF = "GET /v1/shelves/{id}"
BY_NAME = "GET /v1/shelves/by-name/{name}"
BOOK = "GET /v1/{name=shelves/*/books/*}"
BOOKS = "POST /v1/shelves/{shelf}/books"
UPDATE = "PATCH /v1/shelves/{shelf}/books/{book.id}"
FILE = "GET /v1/files/{path=**}"
RAW = "GET /v1/files/{path=**}:raw"
LOAN = "GET /v1/loans/{id}"
CANCEL = "POST /v1/loans/{id}:cancel"
IMPORT = "POST /v1/shelves/{id}:import"
ANY = "* /any/{id}"
TYPED = "GET /typed/{an_int32}/{a_bool}/{a_level}/{a_bytes}/{a_time}/{inner.a_double}"

FOUND = [
    # target, method, route, values
    ("/v1/shelves/7", "GET", SHELF, ["7"]),
    ("/v1/shelves/7?", "GET", SHELF, ["7"]),
    ("/v1/shelves/7?a=/b//../%zz", "GET", SHELF, ["7"]),
    ("/v1/shelves/7?a?b", "GET", SHELF, ["7"]),
    # a literal wins over a variable
    ("/v1/shelves/featured", "GET", "GET /v1/shelves/featured", []),
    ("/v1/shelves/%66eatured", "GET", "GET /v1/shelves/featured", []),
    ("/v1/shelves/Featured", "GET", SHELF, ["Featured"]),
    ("/v1/shelves/featured2", "GET", SHELF, ["featured2"]),
    ("/v1/shelves/by-name", "GET", SHELF, ["by-name"]),
    ("/v1/shelves/by-name/x", "GET", BY_NAME, ["x"]),
    ("/v1/shelves/by%2Dname/x", "GET", BY_NAME, ["x"]),
    ("/%761/shelves/7", "GET", SHELF, ["7"]),
    ("/v2/shelf", "GET", "GET /v2/shelf", []),
    ("/v1/shelves", "POST", "POST /v1/shelves", []),
    ("/search?aString=x", "GET", "GET /search", []),
    # values are decoded, and an encoded slash stays inside its segment
    ("/v1/shelves/a%20b", "GET", SHELF, ["a b"]),
    ("/v1/shelves/a+b", "GET", SHELF, ["a+b"]),
    ("/v1/shelves/a%2Bb", "GET", SHELF, ["a+b"]),
    ("/v1/shelves/a%2Fb", "GET", SHELF, ["a/b"]),
    ("/v1/shelves/a%2fb", "GET", SHELF, ["a/b"]),
    ("/v1/shelves/%2F", "GET", SHELF, ["/"]),
    ("/v1/shelves/%2Fx", "GET", SHELF, ["/x"]),
    ("/v1/shelves/featured%2F", "GET", SHELF, ["featured/"]),
    ("/v1/shelves/by-name%2Fx", "GET", SHELF, ["by-name/x"]),
    ("/v1/shelves/a%252Fb", "GET", SHELF, ["a%2Fb"]),
    ("/v1/shelves/a%2500", "GET", SHELF, ["a%00"]),
    ("/v1/shelves/%252e%252e", "GET", SHELF, ["%2e%2e"]),
    ("/v1/shelves/a%5Cb", "GET", SHELF, ["a\\b"]),
    ("/v1/shelves/%5C", "GET", SHELF, ["\\"]),
    ("/v1/shelves/a%3Fb", "GET", SHELF, ["a?b"]),
    ("/v1/shelves/a%23b", "GET", SHELF, ["a#b"]),
    ("/v1/shelves/a%25b", "GET", SHELF, ["a%b"]),
    ("/v1/shelves/%C3%A9", "GET", SHELF, ["é"]),
    ("/v1/shelves/%c3%a9", "GET", SHELF, ["é"]),
    ("/v1/shelves/%F0%9F%98%80", "GET", SHELF, ["😀"]),
    ("/v1/shelves/%E2%80%A8", "GET", SHELF, ["\u2028"]),
    ("/v1/shelves/...", "GET", SHELF, ["..."]),
    ("/v1/shelves/..a", "GET", SHELF, ["..a"]),
    ("/v1/shelves/a..", "GET", SHELF, ["a.."]),
    ("/v1/shelves/a.b", "GET", SHELF, ["a.b"]),
    ("/v1/shelves/.hidden", "GET", SHELF, [".hidden"]),
    ("/v1/shelves/a%2F.b", "GET", SHELF, ["a/.b"]),
    ("/v1/shelves/;a=1", "GET", SHELF, [";a=1"]),
    ("/v1/shelves/a,b;c=d&e@f$g!h'(i)*", "GET", SHELF, ["a,b;c=d&e@f$g!h'(i)*"]),
    ("/v1/shelves/~user_-", "GET", SHELF, ["~user_-"]),
    ("/v1/shelves/{id}", "GET", SHELF, ["{id}"]),
    ("/v1/shelves/*", "GET", SHELF, ["*"]),
    ("/v1/shelves/**", "GET", SHELF, ["**"]),
    ("/v1/shelves/" + "x" * 8000, "GET", SHELF, ["x" * 8000]),
    # several segments in one variable
    ("/v1/shelves/1/books/2", "GET", BOOK, ["shelves/1/books/2"]),
    ("/v1/shelves/a%20b/books/%C3%A9", "GET", BOOK, ["shelves/a b/books/é"]),
    ("/v1/shelves/a%2Fb/books/c%2fd", "GET", BOOK, ["shelves/a%2Fb/books/c%2fd"]),
    ("/v1/shelves/%252F/books/2", "GET", BOOK, ["shelves/%2F/books/2"]),
    ("/v1/shelves/by-name/books/2", "GET", BOOK, ["shelves/by-name/books/2"]),
    ("/v1/shelves/featured/books/2", "GET", BOOK, ["shelves/featured/books/2"]),
    ("/v1/shelves/1/books/2", "PATCH", UPDATE, ["1", "2"]),
    ("/v1/shelves/1/books/a%2Fb", "PATCH", UPDATE, ["1", "a/b"]),
    ("/v1/shelves/1/books/2", "PUT", "PUT /v1/shelves/{shelf}/books/{book.id}", ["1", "2"]),
    ("/v1/shelves/1/books", "POST", BOOKS, ["1"]),
    ("/v1/books/2", "DELETE", "DELETE /v1/books/{id}", ["2"]),
    ("/v1/files/a", "GET", FILE, ["a"]),
    ("/v1/files/a/b/c", "GET", FILE, ["a/b/c"]),
    ("/v1/files/a/b%2Fc/%20d", "GET", FILE, ["a/b%2Fc/ d"]),
    ("/v1/files", "GET", FILE, [""]),
    ("/v1/files/%2e%2e%2e/x", "GET", FILE, [".../x"]),
    ("/v1/files" + "/x" * 500, "GET", FILE, ["/".join("x" * 500)]),
    # verbs: a colon as it was sent, in the last segment
    ("/v1/loans/7:cancel", "POST", CANCEL, ["7"]),
    ("/v1/loans/a:b:cancel", "POST", CANCEL, ["a:b"]),
    ("/v1/loans/7%3Ax:cancel", "POST", CANCEL, ["7:x"]),
    ("/v1/loans/a%2Fb:cancel", "POST", CANCEL, ["a/b"]),
    ("/v1/loans/7:cancel", "GET", LOAN, ["7:cancel"]),
    ("/v1/loans/7%3Acancel", "GET", LOAN, ["7:cancel"]),
    ("/v1/loans/7:other", "GET", LOAN, ["7:other"]),
    ("/v1/loans/:", "GET", LOAN, [":"]),
    ("/v1/loans/7:", "GET", LOAN, ["7:"]),
    ("/v1/files/a/b:raw", "GET", RAW, ["a/b"]),
    ("/v1/files/a:raw/b", "GET", FILE, ["a:raw/b"]),
    ("/v1/files/a/b%3Araw", "GET", FILE, ["a/b:raw"]),
    ("/v1/files/a/b:Raw", "GET", FILE, ["a/b:Raw"]),
    ("/v1/shelves/7:import", "POST", IMPORT, ["7"]),
    ("/v1/shelves/7:import", "GET", SHELF, ["7:import"]),
    ("/v1/shelves/featured:import", "POST", IMPORT, ["featured"]),
    # other methods
    ("/v1/loans/7", "TRACE", "TRACE /v1/loans/{id}", ["7"]),
    ("/any/7", "GET", ANY, ["7"]),
    ("/any/7", "PROPFIND", ANY, ["7"]),
    ("/any/7", "get", ANY, ["7"]),
    (
        "/typed/1/true/LEVEL_LOW/AA/x/1.5",
        "GET",
        TYPED,
        ["1", "true", "LEVEL_LOW", "AA", "x", "1.5"],
    ),
    ("/v1/shelves/1/labels", "PUT", "PUT /v1/shelves/{id}/labels", ["1"]),
    ("/v1/shelves/1/name", "PUT", "PUT /v1/shelves/{id}/name", ["1"]),
]

NOT_FOUND = [
    "/",
    "/v1",
    "/v1/",
    "/v1/shelve",
    "/v1/shelvess/7",
    "/v1/shelves/",
    "/v1/shelves/7/",
    "/v1/shelves/7/x",
    "/V1/shelves/7",
    "/v1/Shelves/7",
    "/v1/shelves/7/books/8/9",
    "/v1/shelves/7/books/8/",
    "/v1/shelves/by-name/x/",
    "/v1/shelves/by-name/x/y",
    "/v2",
    "/v2/shelf/",
    "/v2/shelf/x",
    "/v2/shelf:x",
    "/v3/shelf",
    "/search/",
    "/search/x",
    "/v1%2Fshelves%2F7",
    "/v1/shelves%2F7",
    "/v1%2Fshelves/7",
    "/%2Fv1/shelves/7",
    "/v1/shelves/7%2Fbooks/8/x",
    "/v1/loans",
    "/v1/loans/",
    "/v1/loans/7/",
    "/v1/loans/7/cancel",
    "/v1/loans/7:cancel/",
    "/v1/loans/7/:cancel",
    "/any",
    "/any/",
    "/any/7/8",
    "/any/7/",
    "/typed/1",
    "/typed/1/true/LEVEL_LOW/AA/x",
    "/typed/1/true/LEVEL_LOW/AA/x/1.5/",
    "/typed/1/true/LEVEL_LOW/AA/x/1.5/2",
    "/x",
    "/x/y/z",
    "/v1/files/",
    "/v1/files/a/",
    "/v1/files/a/b/",
    "/v1/filesystem",
    "/v1:shelves/7",
    "/v1/shelves;x/7",
    "/~",
    "/favicon.ico",
    "/robots.txt",
    "/.well-known/x",
    "/index.html",
    "/v1/shelves.json",
    "/library.Library/GetShelf",
    "/?",
    "/?a=b",
    "/v1/shelves/7/labels/x",
    "/v1/books/2/",
    "/v1/books/",
    "/v1/book/2",
]

WRONG_METHOD = [
    # target, method, allowed
    ("/v1/shelves/7", "POST", ["GET"]),
    ("/v1/shelves/7", "DELETE", ["GET"]),
    ("/v1/shelves/7", "get", ["GET"]),
    ("/v1/shelves/7", "HEAD", ["GET"]),
    ("/v1/shelves/7", "", ["GET"]),
    ("/v1/shelves/featured", "PUT", ["GET"]),
    ("/v1/shelves", "GET", ["POST"]),
    ("/v1/shelves?id=7", "GET", ["POST"]),
    ("/v1/shelves/1/books", "GET", ["POST"]),
    ("/v1/shelves/1/books/2", "DELETE", ["GET", "PATCH", "PUT"]),
    ("/v1/shelves/1/books/2", "OPTIONS", ["GET", "PATCH", "PUT"]),
    ("/v1/books/2", "GET", ["DELETE"]),
    ("/v1/loans/7", "DELETE", ["GET", "TRACE"]),
    ("/v1/loans/7", "POST", ["GET", "TRACE"]),
    ("/v1/loans/7:cancel", "DELETE", ["GET", "POST", "TRACE"]),
    ("/v1/files/a/b", "POST", ["GET"]),
    ("/v1/shelves/7:import", "PUT", ["GET", "POST"]),
    ("/v1/shelves/7/name", "GET", ["PUT"]),
    ("/search", "POST", ["GET"]),
    ("/v2/shelf", "*", ["GET"]),
]

BAD = {
    "start with a slash": [
        "",
        "v1/shelves/7",
        "*",
        "?a=b",
        "http://host/v1/shelves/7",
        "%2Fv1/shelves/7",
        ".",
        "..",
        ":",
        "host:443",
        "library.Library/GetShelf",
        "\\v1",
    ],
    "empty segment": [
        "//",
        "//v1/shelves/7",
        "/v1//shelves/7",
        "/v1/shelves//7",
        "/v1/shelves//",
        "///",
        "//host/x",
        "/v1/files//a",
        "/v1/files/a//b",
        "/v1/shelves/7//",
    ],
    ". or ..": [
        "/.",
        "/..",
        "/./",
        "/../",
        "/v1/.",
        "/v1/..",
        "/v1/shelves/.",
        "/v1/shelves/..",
        "/v1/shelves/../shelves/7",
        "/v1/./shelves/7",
        "/../v1/shelves/7",
        "/v1/shelves/7/..",
        "/v1/shelves/%2e",
        "/v1/shelves/%2E%2e",
        "/v1/shelves/.%2e",
        "/v1/shelves/%2e.",
        "/v1/shelves/..%2Fx",
        "/v1/shelves/x%2F..",
        "/v1/shelves/x%2F..%2Fy",
        "/v1/shelves/%2F..",
        "/v1/shelves/..%5Cx",
        "/v1/shelves/x%5C..",
        "/v1/shelves/.%2F",
        "/v1/files/../x",
        "/v1/files/a/../../x",
        "/v1/files/a/%2e%2e/x",
        "/v1/files/a/..%2F..%2Fx",
        "/%2e%2e/v1",
        "/v1/%2e%2e%2fshelves/7",
    ],
    "backslash": [
        "/\\",
        "/v1\\shelves\\7",
        "/v1/shelves/\\",
        "/v1/shelves/..\\x",
        "/\\host/x",
        "/v1/files/a\\b",
    ],
    "percent-encoded": [
        "/v1/shelves/7\0",
        "/\0",
        "/v1/shelves/a b",
        " /v1/shelves/7",
        "/v1/shelves/7 ",
        "/v1/shelves/7\r\n",
        "/v1/shelves/7\nx",
        "/v1/shelves/\t",
        "/v1/shelves/\x7f",
        "/v1/shelves/\x1b[0m",
        "/v1/shelves/é",
        "/v1/shelves/\u202e",
        "/v1/shelves/😀",
        "/v1/shelves/7?a=b c",
        "/v1/shelves/7?é",
        "/v1/shelves/7?\0",
        "/v1/shelves/7?a=\r\nb",
    ],
    "fragment": ["/v1/shelves/7#x", "/#", "/v1/shelves/7?a=b#c", "/v1/shelves/#"],
    "hexadecimal": [
        "/v1/shelves/%",
        "/v1/shelves/%2",
        "/v1/shelves/%zz",
        "/v1/shelves/%2z",
        "/v1/shelves/a%",
        "/v1/shelves/%%",
        "/v1/shelves/%-1",
        "/v1/shelves/%+2",
        "/v1/shelves/%u0041",
        "/v1/shelves/%25%",
        "/%/v1",
        "/v1/files/a/%x",
        "/nowhere/%zz",
    ],
    "encoded NUL": [
        "/v1/shelves/%00",
        "/v1/shelves/a%00b",
        "/v1/shelves/featured%00",
        "/%00",
        "/v1/files/a/%00",
    ],
    "control character": [
        "/v1/shelves/%0A",
        "/v1/shelves/a%0D%0Ab",
        "/v1/shelves/%1b%5b0m",
        "/v1/shelves/%7F",
        "/v1/shelves/%09",
        "/v1/shelves/%C2%85",
        "/v1/files/a/%08",
    ],
    "UTF-8": [
        "/v1/shelves/%FF",
        "/v1/shelves/%C3",
        "/v1/shelves/%C3%28",
        "/v1/shelves/%C0%AF",
        "/v1/shelves/%E0%80%AF",
        "/v1/shelves/%ED%A0%80",
        "/v1/shelves/%F4%90%80%80",
        "/v1/files/%80/x",
        "/v1/shelves/%c0%ae%c0%ae",
    ],
}


@pytest.mark.parametrize(("target", "method", "route", "values"), FOUND)
def test_found(target: str, method: str, route: str, values: list[str]) -> None:
    index, found, query = TRANSCODER.match(method, target)
    binding = TRANSCODER.bindings[index]
    assert f"{binding.http_method} {binding.template}" == route
    assert found == tuple(values)
    assert len(binding.variables) == len(values)
    assert query == target.partition("?")[2]


@pytest.mark.parametrize("target", NOT_FOUND)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_not_found(target: str, method: str) -> None:
    with pytest.raises(RouteNotFoundError):
        TRANSCODER.match(method, target)


@pytest.mark.parametrize(("target", "method", "allowed"), WRONG_METHOD)
def test_wrong_method(target: str, method: str, allowed: list[str]) -> None:
    with pytest.raises(MethodNotAllowedError) as caught:
        TRANSCODER.match(method, target)
    assert caught.value.allowed == tuple(allowed)
    assert caught.value.method == method
    assert ", ".join(allowed) in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "target"),
    [(reason, target) for reason, targets in BAD.items() for target in targets],
)
def test_bad_target(reason: str, target: str) -> None:
    with pytest.raises(TranscodeError, match=reason) as caught:
        TRANSCODER.match("GET", target)
    assert caught.value.kind == "bad_target"


def test_the_tables_are_as_large_as_promised() -> None:
    bad = sum(map(len, BAD.values()))
    assert len(FOUND) + len(NOT_FOUND) + len(WRONG_METHOD) + bad >= 200


@given(st.text(max_size=30) | st.text("/.%2eFf:\\?#a", max_size=30).map("/v1/shelves/".__add__))
def test_any_target_has_an_answer(target: str) -> None:
    try:
        index, values, _ = TRANSCODER.match("GET", target)
    except (TranscodeError, RouteNotFoundError, MethodNotAllowedError):
        return
    assert len(values) == len(TRANSCODER.bindings[index].variables)
    for value in values:
        parts = value.replace("\\", "/").split("/")
        assert not {".", ".."} & set(parts)
        assert "\0" not in value


@given(segments=st.lists(st.text("ab/\\ %:é?", min_size=1, max_size=4), min_size=1, max_size=4))
def test_encoding_is_undone_and_never_moves_a_segment(segments: list[str]) -> None:
    from urllib.parse import quote

    encoded = [quote(segment, safe="") for segment in segments]
    if len(segments) == 1:
        index, values, _ = TRANSCODER.match("GET", f"/v1/shelves/{encoded[0]}")
        assert TRANSCODER.bindings[index].template == "/v1/shelves/{id}"
        assert values == (segments[0],)
    _, (path,), _ = TRANSCODER.match("GET", "/v1/files/" + "/".join(encoded))
    kept = [segment.replace("/", "%2F") for segment in segments]
    assert path == "/".join(kept)
