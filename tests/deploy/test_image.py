"""The image's Dockerfile: pinned, without rights, and agreed with what starts it. It is built by scripts/image.py."""

from __future__ import annotations

import json
import re
import subprocess

from tests.deploy.composition import DEPLOY, OWN, ROOT, SERVICES
from tests.tools import tool

FILE = DEPLOY / "Dockerfile"
#: Instructions in their order, continued lines joined.
STEPS = [
    (step[0], step[1])
    for line in re.sub(r"\\\n\s*", " ", FILE.read_text()).splitlines()
    if line and not line.startswith("#") and (step := line.strip().partition(" ")[::2])
]
#: Those of the image that is kept.
KEPT = STEPS[max(number for number, step in enumerate(STEPS) if step[0] == "FROM") :]


def said(instruction: str) -> str:
    (found,) = (text for name, text in KEPT if name == instruction)
    return found


def test_hadolint_has_nothing_to_say() -> None:
    ran = subprocess.run([tool("hadolint"), FILE], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_every_base_is_pinned_and_can_be_another_one() -> None:
    bases = [text.partition(" ")[0] for name, text in STEPS if name == "FROM"]
    given = dict(text.split("=", 1) for name, text in STEPS if name == "ARG")
    assert len(bases) == 3
    for base in bases:
        image = given[base.removeprefix("${").removesuffix("}")]
        image = image.replace("${PYTHON_VERSION}", given["PYTHON_VERSION"])
        assert re.fullmatch(r"docker\.io/library/[a-z]+:\d+\.\d+\.\d+-(slim-)?bookworm", image)


def test_it_runs_as_the_user_that_compose_names() -> None:
    users = {SERVICES[name]["user"] for name in OWN}
    assert users == {said("USER")}


def test_compose_asks_for_its_health_as_the_image_does() -> None:
    check = json.loads(said("HEALTHCHECK").partition(" CMD ")[2])
    for name in OWN:
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", *check]


def test_its_ports_are_those_that_compose_has() -> None:
    assert said("EXPOSE").split() == ["50051", "8443", "9464"]
    assert said("STOPSIGNAL") == "SIGTERM"
    assert json.loads(said("CMD")), "not in exec form: a shell would keep the signal to itself"
    assert not [name for name, _ in KEPT if name == "ENTRYPOINT"]
    state = json.loads(said("VOLUME"))
    assert [each for each in SERVICES["gateway"]["volumes"] if each.endswith(state[0])]


def test_nothing_is_installed_without_a_hash_or_compiled_from_a_download() -> None:
    installs = re.findall(r"(?<!un)install (--[^&]*)", "\n".join(text for _, text in STEPS))
    assert len(installs) == 3
    for each in installs:
        assert "--no-index" in each or "--require-hashes --only-binary :all:" in each
    assert not [text for _, text in STEPS if re.search(r"apt|curl|wget|ADD|git clone", text)]


def test_what_it_copies_is_there_and_is_all_that_a_build_sees() -> None:
    """A checkout's secrets, its history and its environment stay out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    seen = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        source
        for name, text in STEPS
        if name == "COPY" and not text.startswith("--from")
        for source in text.split()[:-1]
    }
    assert copied == seen
    assert all((ROOT / each).exists() for each in copied)
