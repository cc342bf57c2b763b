"""Prometheus, and the Alertmanager that its alerts go to."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from urllib.parse import quote, urlsplit

from bascule.testing.servers._http import get
from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["AlertmanagerServer", "PrometheusServer", "Series"]


class Series(NamedTuple):
    """One series that a query found, with its value at that moment."""

    labels: dict[str, str]
    value: float


class PrometheusServer(LocalServer):
    """A Prometheus that scrapes what it is told. :attr:`url` has its API and its pages.

    :param scrape: URL of the metrics of each instance by the name of its job; several to a job in a list
    :param rules: files of recording rules and alerts
    :param alertmanager: ``host:port`` that alerts are sent to; None for nowhere
    :param interval: seconds between two scrapes, and between two evaluations of the rules
    :param authority: file with the certificates to trust where a URL is ``https``
    """

    program: ClassVar[str] = "prometheus"
    hint: ClassVar[str] = "`apt-get install prometheus`, as root, or https://prometheus.io/download"

    def __init__(
        self,
        *,
        scrape: Mapping[str, str | Iterable[str]] | None = None,
        rules: Iterable[Path] = (),
        alertmanager: str | None = None,
        interval: float = 1.0,
        authority: Path | None = None,
        folder: Path | None = None,
        patience: float = 60.0,
    ) -> None:
        super().__init__(folder=folder, patience=patience)
        self.scrape = {
            job: [urls] if isinstance(urls, str) else list(urls)
            for job, urls in (scrape or {}).items()
        }
        self.rules = list(rules)
        self.alertmanager = alertmanager
        self.interval = interval
        self.authority = authority

    @property
    def url(self) -> str:
        """Of the API and the pages."""
        return f"http://{self.address}"

    def query(self, expression: str) -> list[Series]:
        """Evaluate an expression now.

        :raises ValueError: if Prometheus cannot evaluate it; the message has its own
        :raises OSError: if it does not answer within 30 s
        """
        result = self._ask(f"/api/v1/query?query={quote(expression)}")
        if result["resultType"] == "scalar":
            return [Series({}, float(result["result"][1]))]
        return [Series(each["metric"], float(each["value"][1])) for each in result["result"]]

    def alerts(self) -> list[dict[str, Any]]:
        """Give the alerts that are pending or firing, as the API has them."""
        return list(self._ask("/api/v1/alerts")["alerts"])

    def targets(self) -> dict[str, str]:
        """Give the health of each target, ``up``, ``down`` or ``unknown``, by the URL that is scraped."""
        active = self._ask("/api/v1/targets?state=active")["activeTargets"]
        return {each["scrapeUrl"]: each["health"] for each in active}

    def _ask(self, path: str) -> dict[str, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30.0)
        try:
            connection.request("GET", path)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if answer["status"] != "success":
            raise ValueError(f"{path}: {answer['error']}")
        return dict(answer["data"])

    def _jobs(self) -> Iterable[dict[str, Any]]:
        for job, urls in self.scrape.items():
            for url in urls:
                parts = urlsplit(url)
                found: dict[str, Any] = {
                    "scheme": parts.scheme,
                    "metrics_path": parts.path or "/metrics",
                }
                if parts.scheme == "https" and self.authority is not None:
                    found["tls_config"] = {"ca_file": str(self.authority)}
                # A job's name may come once: each URL may have a path of its own.
                yield {
                    "job_name": f"{job} {url}",
                    **found,
                    "static_configs": [{"targets": [parts.netloc], "labels": {"job": job}}],
                }

    def _command(self, program: Path) -> list[str]:
        pause = f"{round(self.interval * 1000)}ms"
        timing = {"scrape_interval": pause, "evaluation_interval": pause, "scrape_timeout": pause}
        settings: dict[str, Any] = {
            "global": timing,
            "rule_files": [str(path.resolve()) for path in self.rules],
            "scrape_configs": list(self._jobs()),
        }
        if self.alertmanager is not None:
            settings["alerting"] = {
                "alertmanagers": [{"static_configs": [{"targets": [self.alertmanager]}]}]
            }
        # Whoever reads YAML reads JSON.
        configuration = self.folder / "prometheus.yml"
        configuration.write_text(json.dumps(settings, indent=2))
        return [
            str(program),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address={self.address}",
            f"--rules.alert.resend-delay={pause}",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        return get(self.port, "/-/ready") is not None


class AlertmanagerServer(LocalServer):
    """An Alertmanager on its own. Its :attr:`address` is for :class:`PrometheusServer`.

    :param config: what its file of settings says; None to show alerts on its page only
    """

    program: ClassVar[str] = "prometheus-alertmanager"
    hint: ClassVar[str] = (
        "`apt-get install prometheus-alertmanager`, as root, or https://prometheus.io/download"
    )

    def __init__(
        self,
        *,
        config: Mapping[str, Any] | None = None,
        folder: Path | None = None,
        patience: float = 60.0,
    ) -> None:
        super().__init__(folder=folder, patience=patience)
        self.config: Mapping[str, Any] = config or {
            "route": {"receiver": "page"},
            "receivers": [{"name": "page"}],
        }

    @property
    def url(self) -> str:
        """Of the API and the pages."""
        return f"http://{self.address}"

    def _command(self, program: Path) -> list[str]:
        configuration = self.folder / "alertmanager.yml"
        configuration.write_text(json.dumps(self.config, indent=2))
        return [
            str(program),
            f"--config.file={configuration}",
            f"--storage.path={self.data}",
            f"--web.listen-address={self.address}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        return get(self.port, "/-/ready") is not None
