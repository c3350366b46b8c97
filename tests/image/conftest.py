"""The real images, built once from the contexts that are synthesized, on whatever engine answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from stacks.config import load_environment
from stacks.constructs.image_context import stage_context
from tests.image.engine import Image, docker

BUILD_SECONDS = 1800


@pytest.fixture(scope="session")
def _engine() -> None:
    # Only who asks for the images' tests comes here: without an engine they fail, or nobody would notice.
    try:
        answered = docker("version")
    except FileNotFoundError:
        pytest.fail(
            "the images' tests need a container engine: there is no `docker` on the PATH", pytrace=False
        )
    if answered.returncode != 0:
        reason = answered.stderr.strip()[:200]
        pytest.fail(f"the images' tests need a container engine, and none answers: {reason}", pytrace=False)


@pytest.fixture(scope="session")
def build(_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Image]:
    """Builds the image of `docker/NAME` from the context that `dev` synthesizes."""
    made: dict[str, Image] = {}

    def build_one(name: str) -> Image:
        if name not in made:
            context = tmp_path_factory.mktemp(name)
            stage_context(context, name, load_environment("dev"))
            built = docker(
                "build", "--tag", f"updraft-test-{name}", str(context), timeout_seconds=BUILD_SECONDS
            )
            assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
            made[name] = Image(f"updraft-test-{name}")
        return made[name]

    return build_one


@pytest.fixture(scope="session")
def airflow(build: Callable[[str], Image]) -> Image:
    return build("airflow")


@pytest.fixture(scope="session")
def mlflow(build: Callable[[str], Image]) -> Image:
    return build("mlflow")


@pytest.fixture(scope="session")
def training(build: Callable[[str], Image]) -> Image:
    return build("training")


@pytest.fixture
def container() -> Iterator[str]:
    """A name for a container, which is gone when the test has ended."""
    name = f"updraft-test-{uuid.uuid4().hex[:12]}"
    yield name
    docker("rm", "--force", "--volumes", name)
