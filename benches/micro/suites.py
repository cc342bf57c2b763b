"""The micro-benchmarks as suites of a run, each in a process of its own."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence

from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.macro import Settings

_TIMEOUT = 120.0  #: seconds


def micro_suite(name: str) -> Callable[[Settings, Figures], None]:
    """Answer with what measures ``benches.micro.NAME``."""
    return functools.partial(_measure, name)


def _measure(name: str, settings: Settings, figures: Figures) -> None:
    command = process.python(f"benches.micro.{name}", "--json")
    output, readable = process.run(command, settings.subject_core, _TIMEOUT)
    samples: Mapping[str, Mapping[str, Sequence[float]]] = json.loads(output)["samples"]
    for case, subjects in samples.items():
        for subject, seconds in subjects.items():
            key = Key(name, subject, case, "seconds_per_operation")
            for sample in seconds:
                figures.add(key, "s", sample, readable)
