"""What all tests share: both event loops, and how hard hypothesis tries."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from tests.certificates import Certificates, issue

pytest_plugins = ("tests.servers",)

# Machines that run tests are busy: time says nothing about an example.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", _PATIENT, max_examples=100)
settings.register_profile("ci", _PATIENT, max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test on both loops."""
    backend: str = request.param
    return backend


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """What TLS and mutual TLS need; made once."""
    return issue(tmp_path_factory.mktemp("tls"))
