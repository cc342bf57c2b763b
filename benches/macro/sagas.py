"""Sagas: steps a second of a durable log in SQLite, bascule's and DBOS's, in the same run."""

import importlib.util
import json
import tempfile

from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro._settings import Settings

#: What bascule's sagas are compared with has every commit on the disk; by default, bascule's survive the
#: end of the process, not that of the machine. So both are measured.
SUBJECTS = {
    "bascule asyncio": "asyncio",
    "bascule trio": "trio",
    "bascule asyncio, fsync": "asyncio-fsync",
    "DBOS": "dbos",
}
AT_ONCE = (1, 10)
_TIMEOUT = 60.0


def measure(settings: Settings, figures: Figures) -> None:
    """Measure each subject on a core of its own, runs of ten steps that do nothing."""
    subjects = dict(SUBJECTS)
    if importlib.util.find_spec("dbos") is None:
        del subjects["DBOS"]
        figures.skip("DBOS", "dbos is not installed")
    for _ in range(settings.rounds):
        for at_once in AT_ONCE:
            for name, subject in subjects.items():
                with tempfile.TemporaryDirectory() as folder:
                    command = process.python(
                        "benches.peers.sagas", subject, folder, at_once, settings.short
                    )
                    output, readable = process.run(command, settings.subject_core, _TIMEOUT)
                result: dict[str, float] = json.loads(output.splitlines()[-1])
                key = Key("sagas", name, f"{at_once} at a time", "steps_per_second")
                figures.add(key, "1/s", result["steps_per_second"], readable)
                cpu = key._replace(metric="cpu_per_step")
                figures.add(cpu, "s", result["cpu_per_step"], readable)
