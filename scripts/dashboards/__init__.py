"""The dashboards: which pictures are on which page. A test runs each of their queries against a real Prometheus."""

from scripts.dashboards.gateway import GATEWAY
from scripts.dashboards.resilience import RESILIENCE
from scripts.dashboards.runtime import RUNTIME
from scripts.dashboards.sagas import SAGAS
from scripts.dashboards.services import SERVICES

__all__ = ["DASHBOARDS"]

DASHBOARDS = (SERVICES, GATEWAY, RESILIENCE, SAGAS, RUNTIME)
