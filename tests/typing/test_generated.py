"""Generated stubs and bases pass mypy --strict, and give their users the types they promise."""

from __future__ import annotations

import sys
from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]


def test_generated_services_are_typed(tmp_path: Path) -> None:
    files = [
        str(path)
        for folder in ("tests/generated", "python/bascule_shop/_generated")
        for pattern in ("*_bascule.py", "services.py")
        for path in sorted((ROOT / folder).rglob(pattern))
    ]
    usage = str(Path(__file__).with_name("usage_of_generated.py"))
    # Only these files are checked: what other generators wrote is not strict.
    options = [
        "--strict",
        "--follow-imports=silent",
        "--explicit-package-bases",
        "--no-error-summary",
    ]
    where = [f"--python-executable={sys.executable}", f"--cache-dir={tmp_path}", "--config-file="]
    out, err, status = api.run([*options, *where, *files, usage])
    assert (out, err, status) == ("", "", 0)
