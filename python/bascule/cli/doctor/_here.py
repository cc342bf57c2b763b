"""What is installed on this machine, and what it allows a process."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from bascule.cli.doctor._examine import Check, Level, Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bascule.cli.doctor._examine import Look

__all__ = ["checks_of_machine"]

#: A gateway holds a descriptor for each client, and a connection to each instance of each service.
_FEW_FILES = 4096

#: Seconds: a toolchain's front end may have to look for its toolchain first.
_STARTING = 20.0

_TOOLS = {
    "protoc": (("protoc", "--version"), "grpcio-tools, which brings its own, does as well"),
    "cargo": (("cargo", "--version"), "only needed to build bascule from source"),
    "go": (("go", "version"), "only needed for the peers of `make bench` and some test tools"),
}


def checks_of_machine() -> Iterator[Check]:
    """Give the checks of Python, the wheel, its extras, tools and limits."""
    yield Check("python", "python", _python)
    yield Check("python", "bascule", _wheel, "install the wheel again: pip install bascule")
    yield Check("python", "required packages", _required, "pip install --upgrade bascule")
    yield Check("event loops", "asyncio", _loops)
    yield Check("extras", "extras", _extras)
    for name, (command, use) in _TOOLS.items():
        yield Check("tools", name, _tool(command, use), use, _STARTING, Level.UNCHECKED)
    yield Check("tools", "grpc_tools", _grpc_tools)
    yield Check("limits", "open files", _files)
    yield Check("limits", "processors", _processors)
    yield Check("limits", "core files", _core_files)


async def _python(report: Report) -> None:
    report.ok(
        f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    )


async def _wheel(report: Report) -> None:
    from bascule import _core

    file = Path(str(_core.__file__))
    try:
        installed = distribution("bascule")
    except PackageNotFoundError:
        report.warning(
            f"core {file}, without a package around it",
            "the sources are on the path and no wheel is installed: `make develop`",
        )
        return
    tags = re.findall(r"^Tag: (.+)$", installed.read_text("WHEEL") or "", re.MULTILINE)
    found = f"{installed.version}, core {file.name}, wheel {', '.join(tags) or 'without a tag'}"
    place = Path(str(installed.locate_file("bascule")))
    if not await anyio.Path(place).exists() or not await anyio.Path(file.parent).samefile(place):
        report.warning(
            f"{found}; but the core comes from {file.parent}, the package from {place}",
            "remove one of them from the path (PYTHONPATH), unless you are at work on bascule",
        )
        return
    report.ok(found)


async def _loops(report: Report) -> None:
    import sniffio

    report.ok(f"{platform.python_version()}, of the standard library", subject="asyncio")
    report.ok(version("trio"), subject="trio")
    report.ok(f"this very run is on {sniffio.current_async_library()}", subject="in use")
    try:
        import_module("uvloop")
    except ImportError:
        report.unchecked(
            "not installed",
            "for more speed on asyncio: pip install 'bascule[uvloop]'",
            subject="uvloop",
        )
    else:
        report.ok(version("uvloop"), subject="uvloop")


async def _required(report: Report) -> None:
    wanted = [each for each in _requirements() if each.extra is None]
    if not wanted:
        report.unchecked("the package's metadata is not installed", "pip install bascule")
        return
    wrong = [text for each in wanted if (text := each.problem()) is not None]
    if wrong:
        report.failed("; ".join(wrong), "pip install --upgrade bascule")
    else:
        report.ok(f"all {len(wanted)} are there, in versions that fit")


async def _extras(report: Report) -> None:
    extras: dict[str, list[Requirement]] = {}
    for each in _requirements():
        if each.extra not in {None, "all"}:
            extras.setdefault(str(each.extra), []).append(each)
    for extra, wanted in sorted(extras.items()):
        have = [f"{each.name} {found}" for each in wanted if (found := each.installed())]
        problems = [text for each in wanted if (text := each.problem()) is not None]
        install = f"pip install --upgrade 'bascule[{extra}]'"
        if not have:
            names = ", ".join(each.name for each in wanted)
            report.unchecked(f"not installed: {names}", f"if you need it: {install}", subject=extra)
        elif problems:
            report.failed("; ".join(problems), install, subject=extra)
        else:
            report.ok(", ".join(have), subject=extra)
    if not extras:
        report.unchecked("the package's metadata is not installed", "pip install bascule")


class Requirement:
    """One line of what the wheel's metadata requires, as far as bascule's own lines go.

    Source: PEP 508, without URLs, and with the operators of PEP 440 that order releases.
    """

    def __init__(self, line: str) -> None:
        head, _, marker = line.partition(";")
        extra = re.search(r"extra == '([^']+)'", marker)
        self.extra = extra and extra[1]
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(.*)", head)
        self.name, self.limits = (match[1], match[2].strip()) if match else (head.strip(), "")

    def installed(self) -> str | None:
        """Give the version that is installed, None if none is."""
        try:
            return version(self.name)
        except PackageNotFoundError:
            return None

    def problem(self) -> str | None:
        """Tell what is wrong with what is installed, None if nothing."""
        found = self.installed()
        if found is None:
            return f"{self.name} is not installed, {self.limits or 'any version'} is asked for"
        if not self.allows(found):
            return f"{self.name} is {found}, {self.limits} is asked for"
        return None

    def allows(self, found: str) -> bool:
        """Tell whether a version is within the limits."""
        have = _release(found)
        for limit in filter(None, self.limits.replace(" ", "").split(",")):
            operator, wanted = re.match(r"([<>=!~]*)(.*)", limit).groups()  # type: ignore[union-attr]
            bound = _release(wanted)
            fits = {
                ">=": have >= bound,
                ">": have > bound,
                "<=": have <= bound,
                "<": have < bound,
                "==": have == bound,
                "!=": have != bound,
            }.get(operator, True)
            if not fits:
                return False
        return True


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a version, without zeros at its end: 2.0 is 2."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    parts = [int(each) for each in numbers[0].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _requirements() -> Iterable[Requirement]:
    try:
        return [Requirement(line) for line in requires("bascule") or ()]
    except PackageNotFoundError:
        return []


def _tool(command: tuple[str, ...], use: str) -> Look:
    async def look(report: Report) -> None:
        if shutil.which(command[0]) is None:
            report.unchecked("not installed", use)
            return
        ran = await anyio.run_process(command, check=False)
        report.ok(ran.stdout.decode(errors="replace").partition("\n")[0] or "installed")

    return look


async def _grpc_tools(report: Report) -> None:
    try:
        report.ok(f"grpcio-tools {version('grpcio-tools')}: a protoc of its own")
    except PackageNotFoundError:
        report.unchecked(
            "not installed", "to generate code without protoc: pip install grpcio-tools"
        )


async def _files(report: Report) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FEW_FILES:
        report.ok(f"{_shown(soft)} (at most {_shown(hard)})")
    else:
        report.warning(
            f"{soft} (at most {_shown(hard)}): as many clients at once, less what else is open",
            f"raise it before the service starts: ulimit -n {_shown(hard)}, LimitNOFILE= of systemd",
        )


async def _processors(report: Report) -> None:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _cpu_quota()
    if quota is None:
        report.ok(f"{usable} to use of {os.cpu_count()}, without a quota")
    elif quota < 1:
        report.warning(
            f"{usable} to use, with a quota of {quota:.2f}",
            "less than one core is throttled within single calls: give 1 or more, or no limit",
        )
    else:
        report.ok(f"{usable} to use, with a quota of {quota:g}")


def _cpu_quota() -> float | None:
    """Cores that the control group allows, None for no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


async def _core_files(report: Report) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if soft == 0:
        report.ok("none are written")
    else:
        report.warning(
            f"a crash may write {_shown(soft)} bytes of memory, keys and passwords included",
            "for production: ulimit -c 0, LimitCORE=0 of systemd",
        )


def _shown(limit: int) -> str:
    return "no limit" if limit == resource.RLIM_INFINITY else str(limit)
