"""What holds of every declared metric."""

from __future__ import annotations

import re

import pytest

from bascule.observe._catalog import FAMILIES, SECTIONS
from bascule.observe._families import Family


def test_no_name_is_declared_twice() -> None:
    assert sum(len(section.families) for section in SECTIONS) == len(FAMILIES)


@pytest.mark.parametrize(("name", "family"), FAMILIES.items(), ids=FAMILIES)
def test_names_are_those_of_a_good_exposition(name: str, family: Family) -> None:
    """By Prometheus' "Metric and label naming", and the names that a format keeps for itself."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    assert not name.endswith(("_total", "_sum", "_count", "_bucket", "_created"))
    assert all(re.fullmatch(r"[a-z]+", label) for label in family.labels)
    assert not {"le", "quantile", "pid", "job", "instance"} & set(family.labels)
    assert "|" not in family.meaning, "it stands in a table"
    if family.kind == "histogram":
        assert name.endswith("_seconds")
