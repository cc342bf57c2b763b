"""One line an event, whatever is in it."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING

import pytest
import structlog

from bascule.errors import ConfigurationError
from bascule.observe import TraceContext, configure_logging, escape, trace_variable

if TYPE_CHECKING:
    from collections.abc import Iterator

HOSTILE = "a\r\nlevel=error\x1b[2J\x9b1m\u2028b"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def test_json_has_one_line_an_event_from_both_libraries() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    trace = TraceContext.root()
    token = trace_variable.set(trace)
    structlog.get_logger().info("from structlog", value=HOSTILE)
    logging.getLogger("bascule.test").warning("from %s", HOSTILE, extra={"target": "/x"})
    logging.getLogger("bascule.test").debug("not shown")
    trace_variable.reset(token)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["value"], first["level"]) == ("from structlog", HOSTILE, "info")
    assert (second["event"], second["target"]) == (f"from {HOSTILE}", "/x")
    assert first["trace_id"] == second["trace_id"] == trace.trace_id
    assert stream.getvalue().isascii()


def test_console_lines_carry_no_control_characters() -> None:
    stream = io.StringIO()
    configure_logging("console", stream=stream)
    logging.getLogger("bascule.test").warning("from %s", HOSTILE)
    structlog.get_logger().info("event", value=HOSTILE)
    assert len(stream.getvalue().splitlines()) == 2
    assert not set(stream.getvalue()) & set("\r\x1b\x9b\u2028")


@pytest.mark.parametrize(("level", "shown"), [("info", 0), ("debug", 1)])
def test_each_request_of_a_library_is_for_debugging(level: str, shown: int) -> None:
    """A service that watches Consul would log little else."""
    stream = io.StringIO()
    configure_logging("json", level=level, stream=stream)
    logging.getLogger("httpx").info("HTTP Request: GET http://127.0.0.1:8500/")
    logging.getLogger("httpx").warning("always shown")
    assert len(stream.getvalue().splitlines()) == shown + 1


def test_an_exception_is_told_in_full() -> None:
    stream = io.StringIO()
    configure_logging("json", stream=stream)
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("bascule.test").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ValueError"


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="loud"):
        configure_logging(level="loud")
    with pytest.raises(ConfigurationError, match="xml"):
        configure_logging("xml")  # type: ignore[arg-type]


def test_escape_leaves_ordinary_text_alone() -> None:
    assert escape("Grüße, 世界") == "Grüße, 世界"
    assert escape("a\nb\x7f") == "a\\x0ab\\x7f"
