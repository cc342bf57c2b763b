"""What is installed with bascule: locked, as tested, and under licences that go with its own."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, version

import pytest
from tests.release.wheel import ROOT, RUNTIME, TESTED

#: What may be needed by bascule: nothing that reaches into what uses it. The MPL holds for certifi's own files alone.
LICENCES = {
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0"),
    *("MPL-2.0", "PSF-2.0", "Unlicense"),
}
#: What they say who give no SPDX expression.
SAID = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}


def test_the_image_installs_what_the_tests_run_with() -> None:
    assert RUNTIME.items() <= TESTED.items()


@pytest.mark.parametrize("name", ["runtime", "build"])
def test_each_requirement_of_the_image_has_a_hash(name: str) -> None:
    lines = (ROOT / f"requirements/{name}.txt").read_text().replace("\\\n", " ").splitlines()
    for line in lines[1:]:
        assert re.fullmatch(r"[a-z0-9.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line)


def test_the_image_has_what_the_services_need() -> None:
    """Temporal is for those who have it: its client is larger than all the rest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for extra in ("redis", "mysql", "mongo", "otel", "uvloop"):
        wanted += extras[extra]
    names = {re.split(r"[\[<>=; ]", each)[0] for each in wanted}
    assert names <= set(RUNTIME)
    assert "temporalio" not in RUNTIME


@pytest.mark.parametrize("name", RUNTIME)
def test_its_licence_goes_with_ours(name: str) -> None:
    try:
        assert version(name) == RUNTIME[name]
    except PackageNotFoundError:
        pytest.skip("not for this platform")
    terms = set(re.split(r" (?:AND|OR) |[()]", licence(name))) - {""}
    assert terms, "it does not say what its licence is"
    assert terms <= LICENCES


def licence(name: str) -> str:
    """As SPDX."""
    said = metadata(name)
    if said["License-Expression"]:
        return str(said["License-Expression"])
    classified = [
        each.rpartition(" :: ")[2]
        for each in said.get_all("Classifier", [])
        if each.startswith("License :: ") and not each.endswith("OSI Approved")
    ]
    texts = classified or [str(said["License"] or "").partition("\n")[0]]
    return " AND ".join(SAID.get(each, each) for each in texts)
