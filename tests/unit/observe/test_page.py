"""The samples of docs/how-to/metrics.md work as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_samples(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/metrics.md").read_text()
    file = tmp_path / "samples.py"
    file.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_names_what_is_declared() -> None:
    from bascule.observe._catalog import FAMILIES

    page = (ROOT / "docs/how-to/metrics.md").read_text().partition("## What to look at first")[2]
    names = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", page))
    known = {f"{name}{end}" for name in FAMILIES for end in ("", "_total", "_bucket")}
    assert names - known == {"histogram_quantile"}
