"""compose.yaml as its tests read it, and what else in ``deploy`` has to agree with it."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FOLDER = DEPLOY / "compose"
FILE = FOLDER / "compose.yaml"

Service = dict[str, Any]


def read() -> dict[str, Any]:
    """The file, with its anchors put in."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


COMPOSE = read()
SERVICES: dict[str, Service] = COMPOSE["services"]
#: Those that run the project's own image.
OWN = [name for name, each in SERVICES.items() if "build" in each]


def secrets(folder: Path) -> dict[str, str]:
    """What make_secrets.py makes, by the name of the file."""
    runpy.run_path(str(FOLDER / "make_secrets.py"))["make"](folder)
    return {path.name: path.read_text().strip() for path in folder.iterdir()}


def ports(service: Service) -> dict[int, tuple[str, int]]:
    """Where each port of a container is published: address and port of the host."""
    found = {}
    for each in service.get("ports", []):
        *address, outer, inner = each.split(":")
        found[int(inner)] = (address[0] if address else "0.0.0.0", int(outer))
    return found


def listens(service: Service) -> set[int]:
    """The ports that one of the shop's services listens at."""
    said = service["environment"]
    return {int(said[name].rpartition(":")[2]) for name in ("SHOP_LISTEN", "SHOP_OPERATIONS")}
