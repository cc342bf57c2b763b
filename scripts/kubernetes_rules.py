"""The rules of Prometheus as its operator takes them: a PrometheusRule for each file of deploy/prometheus/rules."""

from __future__ import annotations

from pathlib import Path

__all__ = ["kubernetes_rules"]

RULES = Path(__file__).resolve().parent.parent / "deploy/prometheus/rules"

HEAD = "# Made of deploy/prometheus/rules by scripts/generate.py: change those, and run `make generate`.\n"


def kubernetes_rules() -> str:
    """Give the text of the manifests; comments and folded expressions stay as their authors wrote them."""
    return HEAD + "---\n".join(_manifest(path) for path in sorted(RULES.glob("*.yml")))


def _manifest(path: Path) -> str:
    lines = (f"  {line}" if line else "" for line in path.read_text().splitlines())
    body = "\n".join(lines)
    return f"""\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {path.stem}
spec:
{body}
"""
