"""Plots in SVG, drawn in percent of their width: they fit a telephone, and text around them keeps its size."""

import math
from collections.abc import Sequence
from html import escape

#: Twice as bad as the limit is at the left end, eight times as good at the right one.
_WORST, _BEST = -1.0, 3.0


def bar(value: float, least: float, most: float, scale: float, *, told: str) -> str:
    """Answer with a bar and a whisker from the least to the most.

    :param scale: the value at the right end
    :param told: shown when the pointer rests on it
    """
    width, left, right = (_percent(each / scale) for each in (value, least, most))
    parts = [f'<rect class="bar" y="3" height="12" width="{width}"/>']
    if least != most:
        parts += _whisker(left, right)
    return _svg(parts, told)


def span(middle: float, far: float, least: float, most: float, scale: float, *, told: str) -> str:
    """Answer with a dot at the median, a ring at the 99th percentile, and a whisker over all rounds."""
    at, end, left, right = (_percent(each / scale) for each in (middle, far, least, most))
    parts = [
        *_whisker(left, right),
        f'<line class="span" x1="{at}" x2="{end}" y1="9" y2="9"/>',
        f'<circle class="p50" cx="{at}" cy="9" r="4.5"/>',
        f'<circle class="p99" cx="{end}" cy="9" r="4.5"/>',
    ]
    return _svg(parts, told)


def margin(times: float, *, told: str) -> str:
    """Answer with a bar from a limit to how many times better than it something is, doubling by doubling."""
    doublings = math.log2(times) if times > 0 else _WORST
    shown = min(max(doublings, _WORST), _BEST)
    zero, end = ((each - _WORST) / (_BEST - _WORST) for each in (0.0, shown))
    kind = "met" if times >= 1 else "missed"
    parts = [
        f'<line class="axis" x1="{_percent(mark)}" x2="{_percent(mark)}" y1="0" y2="18"/>'
        for mark in (0.0, 0.5, 0.75, 1.0)
    ]
    left, width, at = _percent(min(zero, end)), _percent(abs(end - zero)), _percent(zero)
    parts += [
        f'<rect class="{kind}" x="{left}" y="4" height="10" width="{width}"/>',
        f'<line class="limit" x1="{at}" x2="{at}" y1="0" y2="18"/>',
    ]
    if doublings > _BEST:  # it goes on
        parts.append(
            f'<svg class="{kind}" x="100%" overflow="visible"><path d="M2 4l6 5l-6 5z"/></svg>'
        )
    return _svg(parts, told)


def _whisker(left: str, right: str) -> list[str]:
    ends = ((left, right, 9, 9), (left, left, 6, 12), (right, right, 6, 12))
    lines = (f'<line x1="{a}" x2="{b}" y1="{c}" y2="{d}"/>' for a, b, c, d in ends)
    return [f'<g class="whisker">{"".join(lines)}</g>']


def _percent(part: float) -> str:
    return f"{100 * part:.4g}%"


def _svg(parts: Sequence[str], told: str) -> str:
    return f'<svg role="img" height="18"><title>{escape(told)}</title>{"".join(parts)}</svg>'
