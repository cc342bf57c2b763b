"""The parts in which the tests run leave none out, and name none that is gone."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from scripts.run_tests import PARTS, ROOT, Part, files_of_parts


def test_each_file_is_in_one_part() -> None:
    there = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py"))
    assert sorted(file for files in files_of_parts().values() for file in files) == there


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_each_pattern_finds_something(part: Part) -> None:
    for pattern in part.patterns:
        assert any(fnmatch(file, pattern) for file in files_of_parts()[part]), pattern
