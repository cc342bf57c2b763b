"""Which traces are recorded: decided once, where a trace enters the process, before anything is built."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Sampling"]

_logger = logging.getLogger("bascule.observe")

#: A ratio is of the trace id's lower half, as other SDKs of OpenTelemetry take it.
_HALF = 2**64

_RATIOS = {
    "always_on": 1.0,
    "always_off": 0.0,
    "traceidratio": None,
    "parentbased_always_on": 1.0,
    "parentbased_always_off": 0.0,
    "parentbased_traceidratio": None,
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """A share of the traces.

    Source: OpenTelemetry, "Tracing SDK", built-in samplers.

    :param ratio: of the traces that begin here, 0 to 1: those whose id is low enough, so that all
        services with the same ratio choose the same ones
    :param by_parent: whether what is a part of a trace that began elsewhere is recorded as that trace is
    :raises ValueError: if the ratio is not between 0 and 1
    """

    ratio: float = 1.0
    by_parent: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio <= 1.0:
            raise ValueError(f"the ratio of traces must be between 0 and 1, not {self.ratio}")

    @property
    def bound(self) -> int:
        """The lower halves of trace ids that are sampled are less than this."""
        return round(self.ratio * _HALF)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Sampling:
        """Read ``OTEL_TRACES_SAMPLER`` and ``OTEL_TRACES_SAMPLER_ARG``.

        What they say that is not known here is logged and left out, as OpenTelemetry wants it:
        all traces that begin here are sampled then.
        """
        name = environment.get("OTEL_TRACES_SAMPLER", "").strip().lower()
        if name and name not in _RATIOS:
            _logger.warning("OTEL_TRACES_SAMPLER=%s is unknown: use %s", name, ", ".join(_RATIOS))
            return cls()
        ratio = _RATIOS[name] if name else 1.0
        if ratio is None:
            ratio = _ratio(environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip())
        return cls(ratio, not name or name.startswith("parentbased_"))


def _ratio(text: str) -> float:
    try:
        ratio = float(text or 1.0)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        _logger.warning("OTEL_TRACES_SAMPLER_ARG=%s is no number from 0 to 1: taken for 1", text)
        return 1.0
    return ratio
