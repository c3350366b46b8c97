"""An image that this machine can't build is told before the CDK CLI starts, with every way out."""

import json
from pathlib import Path

import pytest

from ops import architecture
from ops.console import OperatorError

BUILDX = """Name:   default
Driver: docker

Nodes:
Name:      default
Status:    running
Platforms: linux/amd64*, linux/amd64/v2, linux/386
"""


@pytest.fixture
def assembly(tmp_path: Path) -> Path:
    images = {
        name: {"displayName": name, "source": {"directory": name, "platform": platform}}
        for name, platform in (("airflow", "linux/arm64"), ("training", "linux/amd64"))
    }
    (tmp_path / "s.assets.json").write_text(json.dumps({"dockerImages": images}))
    return tmp_path


def test_arm_image_on_x86_names_the_image_and_the_key(
    assembly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architecture, "supported", lambda: {"linux/amd64"})
    with pytest.raises(OperatorError) as refused:
        architecture.require_buildable(assembly, "dev")
    told = str(refused.value)
    assert "airflow (linux/arm64)" in told
    assert 'architecture = "x86_64" in environments/dev.toml' in told
    assert "--install arm64" in told
    assert "training" not in told


def test_training_on_arm_alone_does_not_name_the_key(assembly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architecture, "supported", lambda: {"linux/arm64"})
    with pytest.raises(OperatorError) as refused:
        architecture.require_buildable(assembly, "dev")
    assert "architecture =" not in str(refused.value)
    assert "--install amd64" in str(refused.value)


@pytest.mark.parametrize("platforms", [{"linux/amd64", "linux/arm64"}, set()])
def test_buildable_or_unknown_says_nothing(
    assembly: Path, monkeypatch: pytest.MonkeyPatch, platforms: set[str]
) -> None:
    monkeypatch.setattr(architecture, "supported", lambda: platforms)
    architecture.require_buildable(assembly, "dev")


def test_platforms_of_buildx() -> None:
    assert architecture.parse_buildx(BUILDX) == {"linux/amd64", "linux/amd64/v2", "linux/386"}
    assert architecture.parse_buildx("Driver: docker\n") == set()


@pytest.mark.parametrize(("state", "found"), [("enabled\n", {"linux/arm64"}), ("disabled\n", set())])
def test_emulator_counts_when_it_is_enabled(tmp_path: Path, state: str, found: set[str]) -> None:
    (tmp_path / "qemu-aarch64").write_text(state + "interpreter /usr/bin/qemu-aarch64\n")
    assert architecture.emulated(tmp_path) == found


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        ({"buildx": BUILDX}, {"linux/amd64", "linux/amd64/v2", "linux/386"}),
        ({"info": "x86_64\n"}, {"linux/amd64"}),
        ({"info": "aarch64\n"}, {"linux/arm64"}),
        ({}, set()),
    ],
)
def test_engine_is_asked_what_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, str], found: set[str]
) -> None:
    monkeypatch.setattr(architecture, "_output", lambda command: answers.get(command[1], ""))
    assert architecture.supported(tmp_path) == found
