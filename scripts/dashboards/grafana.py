"""What a Grafana dashboard is made of, as far as those of bascule need it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Dashboard", "Panel", "Query", "Row", "Variable"]

Kind = Literal["timeseries", "stat", "table", "heatmap", "state-timeline"]

#: Columns of Grafana's grid.
WIDTH = 24

#: Of the JSON that Grafana 11 writes; later ones read it.
SCHEMA = 39

SOURCE = {"type": "prometheus", "uid": "${datasource}"}

#: Units in Grafana's words (https://github.com/grafana/grafana/blob/main/packages/grafana-data/src/valueFormats/categories.ts).
Unit = Literal[
    "short", "reqps", "ops", "percentunit", "s", "bytes", "dateTimeFromNow", "none", "bool_on_off"
]


@dataclass(frozen=True)
class Query:
    """An expression, and what its series are called: ``{{label}}`` stands for a label's value."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture.

    :ivar about: what it tells, and what to think of it
    :ivar limits: value and colour from which it is to be worried about, in rising order
    :ivar words: value and colour by the word for it, where values are states
    :ivar stacked: whether series add up to something
    :ivar most: of the axis; None for what the values need
    """

    title: str
    about: str
    unit: Unit
    queries: Sequence[Query]
    kind: Kind = "timeseries"
    limits: Sequence[tuple[float, str]] = ()
    words: dict[str, tuple[int, str]] = field(default_factory=dict)
    stacked: bool = False
    most: float | None = None

    def render(self, number: int, place: dict[str, int]) -> dict[str, Any]:
        """Make the panel as Grafana has it."""
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.about,
            "gridPos": place,
            "datasource": SOURCE,
            "targets": [
                self._target(query, chr(ord("A") + at)) for at, query in enumerate(self.queries)
            ],
            "fieldConfig": {"defaults": self._field(), "overrides": []},
            "options": self._options(),
            **({"transformations": _TABLE} if self.kind == "table" else {}),
        }

    def _target(self, query: Query, letter: str) -> dict[str, Any]:
        target: dict[str, Any] = {
            "refId": letter,
            "datasource": SOURCE,
            "expr": query.expression,
            "legendFormat": query.legend or "__auto",
        }
        match self.kind:
            case "stat" | "table":
                target |= {"instant": True, "range": False}
            case _:
                target |= {"instant": False, "range": True}
        if self.kind in {"table", "heatmap"}:
            target["format"] = self.kind
        if self.kind in {"timeseries", "heatmap"} and "_bucket{" in query.expression:
            # A point of it leads to a trace.
            target["exemplar"] = True
        return target

    def _field(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        steps += [{"color": color, "value": value} for value, color in self.limits]
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "min": 0,
            "thresholds": {"mode": "absolute", "steps": steps},
            "color": {"mode": "thresholds" if self._by_threshold else "palette-classic"},
        }
        if self.most is not None:
            defaults["max"] = self.most
        if self.words:
            options = {
                str(value): {"text": word, "color": color, "index": at}
                for at, (word, (value, color)) in enumerate(self.words.items())
            }
            defaults["mappings"] = [{"type": "value", "options": options}]
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 30 if self.stacked else 5,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if self.limits else "off"},
            }
        return defaults

    @property
    def _by_threshold(self) -> bool:
        return self.kind in {"stat", "state-timeline"}

    def _options(self) -> dict[str, Any]:
        match self.kind:
            case "timeseries":
                return {
                    "legend": {
                        "displayMode": "table",
                        "placement": "bottom",
                        "calcs": ["lastNotNull", "max"],
                    },
                    "tooltip": {"mode": "multi", "sort": "desc"},
                }
            case "stat":
                return {
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                    "colorMode": "value",
                    "graphMode": "none",
                    "textMode": "auto",
                    "justifyMode": "auto",
                    "orientation": "auto",
                }
            case "table":
                return {"showHeader": True, "cellHeight": "sm"}
            case "heatmap":
                return {
                    "calculate": False,
                    "cellGap": 1,
                    "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                    "yAxis": {"unit": self.unit},
                    "legend": {"show": True},
                    "tooltip": {"mode": "single"},
                }
            case "state-timeline":
                return {
                    "showValue": "never",
                    "mergeValues": True,
                    "rowHeight": 0.9,
                    "legend": {"displayMode": "list", "placement": "bottom"},
                }


#: A table shows labels, not when they were read.
_TABLE = [
    {
        "id": "organize",
        "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True}},
    }
]


@dataclass(frozen=True)
class Row:
    """Panels side by side, under a title.

    :ivar height: of each, in Grafana's units of 30 pixels
    """

    title: str
    panels: Sequence[Panel]
    height: int = 8
    across: int = 3


@dataclass(frozen=True)
class Variable:
    """What is chosen at the top: values of a label."""

    name: str
    label: str
    values: str

    def render(self) -> dict[str, Any]:
        """Make the variable as Grafana has it."""
        return {
            "type": "query",
            "name": self.name,
            "label": self.label,
            "datasource": SOURCE,
            "query": {"query": self.values, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
            "definition": self.values,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }


@dataclass(frozen=True)
class Dashboard:
    """One page. Its file is called after ``name``."""

    name: str
    title: str
    about: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def render(self) -> bytes:
        """Make the file."""
        document = {
            "uid": f"bascule-{self.name}",
            "title": self.title,
            "description": self.about,
            "tags": ["bascule"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "refresh": "30s",
            "annotations": {"list": [_ALERTS]},
            "links": [_OTHERS],
            "templating": {"list": [_DATASOURCE, *(each.render() for each in self.variables)]},
            "panels": self._panels(),
        }
        return json.dumps(document, indent=2).encode() + b"\n"

    def _panels(self) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        top = 0
        for row in self.rows:
            made.append(
                {
                    "id": len(made) + 1,
                    "type": "row",
                    "title": row.title,
                    "collapsed": False,
                    "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
                    "panels": [],
                }
            )
            top += 1
            for begin in range(0, len(row.panels), row.across):
                line = row.panels[begin : begin + row.across]
                width = WIDTH // len(line)
                for at, panel in enumerate(line):
                    place = {"x": at * width, "y": top, "w": width, "h": row.height}
                    made.append(panel.render(len(made) + 1, place))
                top += row.height
        return made


_DATASOURCE = {
    "type": "datasource",
    "name": "datasource",
    "label": "Prometheus",
    "query": "prometheus",
    "current": {},
    "refresh": 1,
}

_ALERTS = {
    "name": "Alerts",
    "datasource": SOURCE,
    "enable": True,
    "iconColor": "red",
    "expr": 'ALERTS{alertstate="firing", job=~"$job"}',
    "titleFormat": "{{alertname}}",
    "textFormat": "{{severity}}",
}

_OTHERS = {
    "type": "dashboards",
    "title": "bascule",
    "tags": ["bascule"],
    "asDropdown": True,
    "includeVars": True,
    "keepTime": True,
}
