"""Windows of breakers, for stateful tests: small ones, in which much happens."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from tests.models.windowed_breaker import WindowRules


@st.composite
def rules(draw: st.DrawFn, unit: int = 1) -> WindowRules:
    """Windows of up to 7 calls or 5 buckets.

    :param unit: what times are multiples of
    """
    timed = draw(st.booleans())
    size = draw(st.integers(1, 5 if timed else 7))
    slow_call = draw(st.none() | st.integers(1, 10))
    return WindowRules(
        size=size,
        width=draw(st.integers(1, 12)) * unit if timed else 0,
        minimum_calls=draw(st.integers(1, 4 if timed else size)),
        failure_rate=draw(shares),
        slow_call=None if slow_call is None else slow_call * unit,
        slow_call_rate=draw(shares),
    )


shares = st.integers(1, 7).flatmap(
    lambda whole: st.builds(Fraction, st.integers(1, whole), st.just(whole))
)
