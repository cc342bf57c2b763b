"""W3C trace context: parse, format, carry by context variable."""

from __future__ import annotations

import re
from base64 import b64decode
from contextvars import ContextVar
from random import getrandbits
from typing import NamedTuple

__all__ = ["TraceContext", "current_trace", "trace_variable"]

_HEX = "0123456789abcdef"
# Version 00 is exactly this long: 2 + 1 + 32 + 1 + 16 + 1 + 2 (Trace Context, section 3.2.2).
_LENGTH = 55
# What nearly all that comes looks like, read in one go.
_COMMON = re.compile(
    "00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]([0-9a-f])"
).fullmatch
_SAMPLED = frozenset("13579bdf")
# "Vendors SHOULD propagate at least 512 characters" (section 3.3.1.5); beyond it a peer only costs us memory.
_STATE_LIMIT = 512


class TraceContext(NamedTuple):
    """Where a unit of work stands in its trace.

    :ivar trace_id: 32 lower-case hexadecimal digits
    :ivar span_id: 16 lower-case hexadecimal digits; the parent of whatever this work calls
    :ivar sampled: whether somebody records this trace
    :ivar state: the vendors' ``tracestate``, passed on as it came
    """

    trace_id: str
    span_id: str
    sampled: bool = False
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header value that makes the receiver's work a child of this one."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> TraceContext:
        """Return a context of the same trace with a span id of its own."""
        return TraceContext(self.trace_id, f"{getrandbits(64) or 1:016x}", self.sampled, self.state)

    @classmethod
    def root(cls, *, sampled: bool = False) -> TraceContext:
        """Begin a trace."""
        digits = f"{getrandbits(192):048x}"  # one draw for both ids: each request begins a trace
        return cls(digits[:32], digits[32:], sampled)

    @classmethod
    def parse(cls, traceparent: str, tracestate: str = "") -> TraceContext | None:
        """Read the two headers; None if ``traceparent`` is malformed, when a new trace begins instead.

        A version above 00 is read as far as version 00 goes, as the specification demands.
        """
        common = _COMMON(traceparent)
        if common is not None and not tracestate:
            trace_id, span_id, flags = common.groups()
            return cls(trace_id, span_id, flags in _SAMPLED)
        if len(traceparent) != _LENGTH and not (
            len(traceparent) > _LENGTH
            and traceparent[_LENGTH] == "-"
            and not traceparent.startswith("00")
        ):
            return None
        version, trace_id, span_id, flags = (
            traceparent[:2],
            traceparent[3:35],
            traceparent[36:52],
            traceparent[53:55],
        )
        well_formed = (
            traceparent[2] == traceparent[35] == traceparent[52] == "-"
            and not (version + trace_id + span_id + flags).strip(_HEX)
            and version != "ff"
            and trace_id.strip("0")
            and span_id.strip("0")
        )
        if not well_formed:
            return None
        if len(tracestate) > _STATE_LIMIT or not (
            tracestate.isascii() and tracestate.isprintable()
        ):
            tracestate = ""  # the trace goes on without what vendors say about it
        return cls(trace_id, span_id, bool(int(flags, 16) & 1), tracestate)

    @classmethod
    def parse_binary(cls, header: str) -> TraceContext | None:
        """Read gRPC's ``grpc-trace-bin`` in base64; None if it is malformed.

        Source: OpenCensus, "BinaryEncoding": version 0, then the fields 0 (trace id, 16 bytes), 1
        (span id, 8 bytes) and 2 (options, 1 byte).
        """
        try:
            data = b64decode(header + "=" * (-len(header) % 4), validate=True)
        except ValueError:
            return None
        if len(data) < 29 or (data[0], data[1], data[18], data[27]) != (0, 0, 1, 2):
            return None
        trace_id, span_id = data[2:18].hex(), data[19:27].hex()
        if not (trace_id.strip("0") and span_id.strip("0")):
            return None
        return cls(trace_id, span_id, bool(data[28] & 1))


_current: ContextVar[TraceContext | None] = ContextVar("bascule_trace", default=None)


def current_trace() -> TraceContext | None:
    """Return the context of the work in progress, None outside of any."""
    return _current.get()


#: The variable itself, for those who open spans: set it, and reset it by the token when the span ends.
trace_variable = _current
