"""``scripts/generate.py``: what is committed is current, and a difference is told."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", root / "scripts/generate.py", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_committed_code_is_current() -> None:
    done = run(ROOT, "--check")
    assert not done.returncode, f"{done.stdout}{done.stderr}"


def test_a_difference_is_told_and_mended(tmp_path: Path) -> None:
    template = "python/bascule/cli/_new/project/protos"
    for folder in ("scripts", "protos", "tests/protos", "benches/proto", template):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    done = run(tmp_path)
    assert not done.returncode, done.stderr
    assert "  new      python/bascule_shop/_generated/descriptors.binpb\n" in done.stdout

    services = tmp_path / "python/bascule_shop/_generated/user/services.py"
    services.write_text(services.read_text().replace("import", "IMPORT", 1))
    descriptors = tmp_path / "python/bascule_shop/_generated/descriptors.binpb"
    descriptors.write_bytes(b"\xff")
    (tmp_path / "tests/generated/old_pb2.py").write_text("")
    done = run(tmp_path, "--check")
    assert done.returncode == 1
    assert (
        "  changed  python/bascule_shop/_generated/user/services.py (+1 -1 lines)\n" in done.stdout
    )
    assert "  changed  python/bascule_shop/_generated/descriptors.binpb (1 -> " in done.stdout
    assert "  left over tests/generated/old_pb2.py\n" in done.stdout
    assert "3 of " in done.stdout
    assert "run `make generate`" in done.stdout

    assert not run(tmp_path).returncode
    assert not run(tmp_path, "--check").returncode
    assert "import" in services.read_text()
    for path in (ROOT / "tests/generated").rglob("*.py"):
        assert (tmp_path / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
