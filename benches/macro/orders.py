"""Orders a second of the whole shop, with its databases in SQLite and in MariaDB."""

import json
import tempfile
from contextlib import ExitStack

from bascule.testing.servers import MariaDBServer, MissingProgramError
from bascule_shop.app import SERVICES
from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings

AT_ONCE = (1, 16)
_TIMEOUT = 60.0  #: seconds
_METRICS = {"orders_per_second": "1/s", "p50": "s", "p99": "s"}


def measure(settings: Settings, figures: Figures) -> None:
    """Measure the shop on its core; its customers have the other, and share it with MariaDB."""
    with ExitStack() as stack:
        stores: dict[str, MariaDBServer | None] = {"SQLite": None}
        try:
            with process.on_core(settings.load_core):
                stores["MariaDB"] = stack.enter_context(MariaDBServer())
        except MissingProgramError as error:
            figures.skip("orders on MariaDB", str(error))
        for _ in range(settings.few_rounds):
            for store, database in stores.items():
                for backend in ("asyncio", "trio"):
                    _measure(backend, store, database, settings, figures)


def _measure(
    backend: str, store: str, database: MariaDBServer | None, settings: Settings, figures: Figures
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = process.python("benches.peers.orders", "serve", backend, folder)
        if database is not None:
            command += [f"{name}={database.fresh_database(name)}" for name in SERVICES]
        with process.serving(command, settings.subject_core) as shop:
            for at_once in AT_ONCE:
                customers = process.python(
                    "benches.peers.orders", "load", shop.address, at_once, settings.short
                )
                before = shop.cpu_seconds()
                output, readable = process.run(customers, settings.load_core, _TIMEOUT)
                cpu = shop.cpu_seconds() - before
                result: dict[str, float] = json.loads(output)
                key = Key("orders", f"bascule {backend}", f"{store}, {at_once} at a time", "")
                commands = f"{shop.command} | {readable}"
                for metric, unit in _METRICS.items():
                    figures.add(key._replace(metric=metric), unit, result[metric], commands)
                key = key._replace(metric="cpu_per_order")
                figures.add(key, "s", cpu / result["orders"], commands)
