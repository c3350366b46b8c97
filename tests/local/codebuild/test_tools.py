"""The stand-ins for Docker and the AWS CLI on a build's host."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from local import images
from local.codebuild.tools import aws, docker
from local.codebuild.tools.host import Host, RefusedError
from local.paths import ROOT
from local.state_file import write_whole

REGISTRY = "000000000000.dkr.ecr.us-east-1.amazonaws.com"
URI = f"{REGISTRY}/pets:abc"


class Ecr:
    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []

    def get_authorization_token(self) -> dict[str, Any]:
        return {"authorizationData": [{"authorizationToken": "QVdTOnNlc2FtZQ=="}]}

    def put_image(self, **image: Any) -> None:
        self.images.append(image)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    build = {"serviceRole": "arn:aws:iam::000000000000:role/build"}
    write_whole(tmp_path / "build.json", {"build": build, "root": str(tmp_path / "state"), "port": 1})
    made, ecr = Host(tmp_path), Ecr()
    monkeypatch.setattr(made, "client", mock.Mock(spec=made.client, return_value=ecr))
    return made


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    (folder / "ml").mkdir(parents=True)
    (folder / "ml" / "a.py").write_text("A = 1\n")
    lock = ROOT / "docker" / "training" / "requirements.txt"
    (folder / "requirements.txt").write_bytes(lock.read_bytes())
    (folder / "Dockerfile").write_text(
        'FROM base\nRUN something\nENV A=1\nCOPY ml /opt/ml-code\nENTRYPOINT ["python"]\n'
    )
    return folder


def test_pushed_image_is_found_by_its_uri_with_the_environment_of_its_lock(host: Host, context: Path) -> None:
    docker.build(host, URI, context)
    with pytest.raises(images.ImageError, match="nobody has pushed it"):
        images.load(host.paths, URI)
    docker.login(host, REGISTRY, "sesame")
    docker.push(host, URI)
    image = images.load(host.paths, URI)
    assert image.name == "training"
    assert image.environment == {"A": "1"}
    assert (image.root / "opt" / "ml-code" / "a.py").read_text() == "A = 1\n"
    [pushed] = host.client("ecr").images
    assert (pushed["repositoryName"], pushed["imageTag"]) == ("pets", "abc")
    assert json.loads(pushed["imageManifest"])["schemaVersion"] == 2


def test_push_needs_the_registrys_own_password(host: Host, context: Path) -> None:
    docker.build(host, URI, context)
    with pytest.raises(PermissionError, match="no basic auth credentials"):
        docker.push(host, URI)
    with pytest.raises(PermissionError, match="wrong password"):
        docker.login(host, REGISTRY, "guess")


def test_lock_of_no_image_is_refused(host: Host, context: Path) -> None:
    (context / "requirements.txt").write_text("other==1\n")
    with pytest.raises(images.ImageError, match="no image of docker/ has this"):
        docker.build(host, URI, context)


@pytest.mark.parametrize(
    "words",
    [["run", "x"], ["build", "--squash", "."], ["build", "."], ["push"], ["login", "--username", "A"]],
)
def test_docker_refuses_what_it_has_not(host: Host, words: list[str]) -> None:
    with pytest.raises(RefusedError):
        docker.run(host, words)


@pytest.mark.parametrize(
    "words", [["s3", "sync", "a", "b"], ["s3", "cp", "a", "b"], ["ec2", "describe-instances"]]
)
def test_aws_refuses_what_it_has_not(host: Host, words: list[str]) -> None:
    with pytest.raises(RefusedError):
        aws.run(host, words)


def test_password_is_the_accounts(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    aws.run(host, ["ecr", "get-login-password", "--region", "us-east-1"])
    assert capsys.readouterr().out == "sesame\n"
