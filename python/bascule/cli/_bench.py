"""``bascule bench``: its arguments."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from bascule.cli._call import metadata_of, tls_of
from bascule.cli._ending import FAILED, WRONG, ending
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from bascule.cli.bench._load import LoadSettings

__all__ = ["bench"]


class BenchLoop(StrEnum):
    """The event loops that can be measured."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"
    TRIO = "trio"


def bench(
    target: Annotated[
        str | None, typer.Argument(help="A server to put load on, instead of measuring bascule.")
    ] = None,
    method: Annotated[
        str | None, typer.Argument(help="package.Service/Method; the package may be left out.")
    ] = None,
    request: Annotated[
        str, typer.Argument(metavar="JSON", help="The request; @FILE, or - for standard input.")
    ] = "{}",
    *,
    in_flight: Annotated[
        int, typer.Option("-c", "--in-flight", min=1, help="Calls at a time on the target.")
    ] = 50,
    connections: Annotated[int, typer.Option(min=1, help="To each endpoint of the target.")] = 1,
    calls: Annotated[int | None, typer.Option("-n", "--calls", min=1, help="Calls in all.")] = None,
    duration: Annotated[
        float, typer.Option("-z", "--duration", min=0.1, help="Seconds of load, if not --calls.")
    ] = 5.0,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Seconds for each call.")] = None,
    proto: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A descriptor set instead of server reflection."),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("-H", "--header", metavar="'NAME: VALUE'", help="Metadata of the calls."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Talk TLS to the target.")] = False,
    cacert: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Authorities to trust; implies --tls.")
    ] = None,
    loop: Annotated[
        list[BenchLoop] | None, typer.Option(help="Only what runs on this loop; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each subject.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of each turn.")] = 1.0,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write all samples as JSON.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on standard output instead of tables.")
    ] = False,
    full: Annotated[
        bool,
        typer.Option("--full", help="In a checkout: the whole suite against all peers instead."),
    ] = False,
) -> None:
    """Measure bascule's servers and clients on this machine, and grpclib and grpcio if they are there.

    One small unary call, each program in a process and on a core of its own, the subjects in turn.
    It takes about a minute. Figures are medians with the least and the most in brackets: what is
    within these is noise. Busy machines measure themselves.

    With a TARGET and a METHOD, put load on that server instead: --in-flight calls at a time, each sent
    when the one before is answered, found by reflection as bascule call does. The exit code is 1 if no
    call ended with OK.
    """
    if full:
        raise typer.Exit(_full())
    if target is None:
        _measure([each.value for each in loop or ()], rounds, seconds, output, as_json=as_json)
        return
    with ending("bench"):
        if method is None:
            raise ConfigurationError("give the METHOD to call, too")
        from bascule.cli.bench._load import LoadSettings

        settings = LoadSettings(
            target=target,
            method=method,
            source=request,
            in_flight=in_flight,
            connections=connections,
            calls=calls,
            seconds=duration,
            timeout=timeout,
            descriptors=proto,
            tls=tls_of(cacert, None, None, None, wanted=tls, insecure=False),
            metadata=[metadata_of(each) for each in header or ()],
        )
        ok = _load(settings, loop[0] if loop else BenchLoop.ASYNCIO, output, as_json=as_json)
    if not ok:
        raise typer.Exit(FAILED)


def _measure(
    loops: list[str], rounds: int, seconds: float, output: Path | None, *, as_json: bool
) -> None:
    from bascule.cli.bench._print import print_results
    from bascule.cli.bench._suite import Plan, machine_facts, measure_all, subjects

    with ending("bench"):
        plan = Plan(subjects(loops), rounds, seconds)
        if not plan.subjects:
            raise ConfigurationError("uvloop is not installed: pip install 'bascule[uvloop]'")
        facts = machine_facts()
        try:
            results = measure_all(plan, _tell)
        finally:
            _tell("")
        document = {
            "machine": facts,
            "settings": {"quick": False, "rounds": rounds, "seconds": seconds},
            "figures": list(results.figures.values()),
        }
        _write(document, output, as_json=as_json)
    if not as_json:
        print_results(facts, results)


def _load(settings: LoadSettings, loop: BenchLoop, output: Path | None, *, as_json: bool) -> bool:
    from bascule.app import settle_memory
    from bascule.cli.bench._load import run_load
    from bascule.cli.bench._print import print_load

    settle_memory()
    trio = loop is BenchLoop.TRIO
    found = anyio.run(
        run_load,
        settings,
        backend="trio" if trio else "asyncio",
        backend_options={} if trio else {"use_uvloop": loop is BenchLoop.UVLOOP},
    )
    _write(found, output, as_json=as_json)
    if not as_json:
        print_load(found)
    return bool(found.statuses.get("OK"))


def _write(document: object, output: Path | None, *, as_json: bool) -> None:
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"
    if output is not None:
        output.write_bytes(text)
    if as_json:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


def _full() -> int:
    if not Path("benches/__main__.py").exists():
        typer.echo(
            "bascule bench: --full: there is no benches/ here; run it in a checkout of bascule",
            err=True,
        )
        return WRONG
    return subprocess.run([sys.executable, "-m", "benches"], check=False).returncode


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
