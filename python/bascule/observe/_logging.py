"""Logging set-up: one escaped line an event, as JSON or for eyes.

bascule itself logs through the standard library, as libraries should; structlog renders what it logs.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Literal

from bascule.errors import ConfigurationError
from bascule.observe._trace_context import current_trace

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import TextIO

# C0, DEL and C1 move a terminal's cursor or end a line; so do the two Unicode line separators.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def escape(text: str) -> str:
    """Return ``text`` with its control characters spelled out, so that it cannot forge or break a line."""
    return text if text.isascii() and text.isprintable() else text.translate(_CONTROLS)


#: Libraries that say at the level "info" what is for debugging: each request, each plugin.
_CHATTY = ("alembic.runtime.plugins", "httpx")


def configure_logging(
    format: Literal["json", "console"] = "json",  # noqa: A002
    *,
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Send structlog's and the standard library's events to one stream, a line each.

    Call it once, in the program's main function: a library never sets up logging.

    :param format: ``"json"`` for collectors, ``"console"`` for eyes
    :param level: the least severe level to show, such as ``"info"``
    :param stream: where to write; standard error by default
    :raises ConfigurationError: if ``level`` or ``format`` is unknown
    """
    import structlog

    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigurationError(
            f"log level {level!r} is unknown: use debug, info, warning, error or critical"
        )
    if format not in {"json", "console"}:
        raise ConfigurationError(f"log format {format!r} is unknown: use json or console")
    stream = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    last: list[Any] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if format == "json"
        else [_escape_values, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        ),
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(
            logging.NOTSET if number <= logging.DEBUG else logging.WARNING
        )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=False,
    )


def _add_trace(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    trace = current_trace()
    if trace is not None:
        event.setdefault("trace_id", trace.trace_id)
    return event


def _escape_values(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = escape(value)
    return event
