"""The page of all metrics, made from where they are declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bascule.observe._catalog import SECTIONS

if TYPE_CHECKING:
    from bascule.observe._families import Family

__all__ = ["metrics_page"]

_TOP = """\
# Metrics

<!-- Made by scripts/generate.py from python/bascule/observe/_catalog.py: do not edit. -->

What `/metrics` shows, of an `App`'s page for operators and of a gateway. A scraper that accepts
OpenMetrics gets that format, with exemplars; others get the classic text format.
[How to measure](../how-to/metrics-and-alerts.md) tells what to scrape and how.

A label has few values whatever clients send: names come from what is declared, never from
requests.

The last column tells how several become one, in one process or several behind one scrape: counters
and histograms add up, and so does a gauge marked *sum*; of *largest*, *smallest* and *worst* one
counts.
"""

_END = """
## Beside these

| Name | Source |
|---|---|
| `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_virtual_memory_bytes`, \
`process_open_fds`, `process_max_fds`, `process_start_time_seconds` | prometheus-client, on Linux |
| `python_gc_collections_total`, `python_gc_objects_collected_total`, \
`python_gc_objects_uncollectable_total` | prometheus-client |

With several processes behind one scrape, these gauges have the label `pid`.
"""

_RULES = {
    "counter": "sum",
    "histogram": "sum",
    "sum": "sum",
    "gauge": "largest",
    "least": "smallest",
    "state": "worst",
}


def metrics_page() -> str:
    """Write the page."""
    parts = [_TOP]
    for title, source, families in SECTIONS:
        parts += [
            f"\n## {title}\n\n{source}\n\n",
            "| Name | Kind | Labels | Meaning | Merged by |\n|---|---|---|---|---|\n",
            *(_line(name, family) for name, family in families.items()),
        ]
    parts.append(_END)
    return "".join(parts)


def _line(name: str, family: Family) -> str:
    shown = f"{name}_total" if family.kind == "counter" else name
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{shown}` | {family.type} | {labels} | {family.meaning} | {_RULES[family.kind]} |\n"
