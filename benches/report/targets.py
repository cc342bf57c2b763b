"""What the figures have to reach: ratios to a peer of the same run, or plain limits."""

from collections.abc import Iterator
from dataclasses import dataclass

from benches.harness.figures import Figures, Key
from benches.macro.sagas import AT_ONCE
from benches.macro.streams import LOADS


@dataclass(frozen=True)
class Target:
    """One thing to reach."""

    figure: Key
    over: Key | None  #: the figure that it is divided by
    limit: float
    at_least: bool
    unit: str = "B"  #: of the limit, if it is no ratio

    def judge(self, figures: Figures) -> "Verdict | None":
        """Answer with the verdict, None if one of the figures was not measured."""
        value = figures.median(self.figure)
        if value is None:
            return None
        if self.over is not None:
            base = figures.median(self.over)
            if not base:
                return None
            value /= base
        return Verdict(self, value, value >= self.limit if self.at_least else value <= self.limit)


@dataclass(frozen=True)
class Verdict:
    """A target and what was reached."""

    target: Target
    value: float
    met: bool

    def as_dict(self) -> dict[str, object]:
        """Answer with the verdict as JSON has it."""
        figure, over = self.target.figure, self.target.over
        return {
            **figure._asdict(),
            "over": over and over.subject,
            "value": self.value,
            "at_least": self.target.at_least,
            "limit": self.target.limit,
            "unit": self.target.unit,
            "met": self.met,
        }


def judge(figures: Figures) -> list[Verdict]:
    """Answer with the verdict on every target whose figures were measured."""
    verdicts = (target.judge(figures) for target in _targets(figures))
    return [verdict for verdict in verdicts if verdict is not None]


def _targets(figures: Figures) -> Iterator[Target]:
    yield from _server_targets()
    yield from _client_targets()
    yield from _streams_targets()
    yield from _codec_targets()
    yield from _saga_targets()
    # What tracing adds to a call that is not sampled, one that its handler makes included.
    added = Key("tracing", "bascule", "handled and made, not sampled", "seconds_per_operation")
    yield Target(added, None, 3e-6, at_least=False, unit="s")
    # The loop that `bascule` runs a gateway on unless it is told otherwise; trio's stands in the table.
    gateway = Key("gateway", "bascule asyncio", "-c1 -m100", "requests_per_second")
    yield _ratio(gateway, "grpc-gateway", at_least=1.0)
    for figure in figures:
        if not figure.key.subject.startswith("bascule"):
            continue
        if figure.key.metric == "bytes_per_connection":
            yield Target(figure.key, None, 64 * 1024, at_least=False)
        elif figure.key.metric == "growth":
            yield Target(figure.key, None, 64 * 1024 * 1024, at_least=False)
        elif figure.key.metric == "first_routed_call_p99":
            yield Target(figure.key, None, 0.25, at_least=False, unit="s")
        elif figure.key.metric == "sockets":
            # 33 for queries that block, 16 for others, and Consul's side is another process.
            yield Target(figure.key, None, 64, at_least=False, unit="sockets")


def _server_targets() -> Iterator[Target]:
    for backend, over_grpcio, over_grpclib in (("asyncio", 12.0, 9.0), ("trio", 9.0, 7.0)):
        key = Key("server", f"bascule {backend}", "-c1 -m100", "calls_per_second")
        yield _ratio(key, "grpcio.aio", at_least=over_grpcio)
        yield _ratio(key, "grpclib", at_least=over_grpclib)

    at_full_load = Key("server", "bascule uvloop", "-c1 -m100", "calls_per_second")
    for native in ("tonic", "grpc-go"):
        yield _ratio(at_full_load, native, at_least=0.6)


def _streams_targets() -> Iterator[Target]:
    # Servers. Clients stand in the table: the server in Go that they share is the bound of some.
    for kind, limit in (("count", 10.0), ("pingpong", 3.0), ("large", 2.0)):
        case, metric, _ = LOADS[kind]
        key = Key("streams", "bascule asyncio", f"server, {case}", metric)
        yield _ratio(key, "grpcio.aio", at_least=limit)


def _client_targets() -> Iterator[Target]:
    # Against grpc-go's server; what clients reach against tonic's stands in the table.
    for backend, throughput, cpu in (("asyncio", 3.0, 0.3), ("trio", 2.5, 0.4)):
        subject = f"bascule {backend}"
        many = Key("client", subject, "100 in flight, to grpc-go", "calls_per_second")
        yield _ratio(many, "grpcio.aio", at_least=throughput)
        yield _ratio(many._replace(metric="cpu_per_call"), "grpcio.aio", at_most=cpu)
        single = Key("client", subject, "sequential, to grpc-go", "sequential_p50")
        yield _ratio(single, "grpcio.aio", at_most=0.65)


def _codec_targets() -> Iterator[Target]:
    for case, limit in (("3 fields", 15.0), ("100 users", 30.0)):
        for direction in ("encode", "decode"):
            key = Key("codec", "betterproto2", f"{case}, {direction}", "seconds_per_operation")
            yield _ratio(key, "bascule", at_least=limit)


def _saga_targets() -> Iterator[Target]:
    # DBOS has every commit on the disk, so what does the same is compared with it.
    for at_once in AT_ONCE:
        key = Key("sagas", "bascule asyncio, fsync", f"{at_once} at a time", "steps_per_second")
        yield _ratio(key, "DBOS", at_least=2.0)


def _ratio(
    key: Key, peer: str, *, at_least: float | None = None, at_most: float | None = None
) -> Target:
    over = key._replace(subject=peer)
    if at_least is not None:
        return Target(key, over, at_least, at_least=True)
    assert at_most is not None
    return Target(key, over, at_most, at_least=False)
