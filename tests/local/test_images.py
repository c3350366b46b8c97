"""Images as folders: what a Dockerfile says, and where container paths lie on this machine."""

import json
from pathlib import Path

import pytest

from local.images import ImageError, PathMap, load
from local.paths import LocalPaths

TAG = "a" * 64
URI = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/assets:{TAG}"


def assembly(tmp_path: Path, dockerfile: str) -> LocalPaths:
    paths = LocalPaths(tmp_path)
    context = paths.cloud_assembly / "asset.x"
    (context / "code").mkdir(parents=True)
    (context / "Dockerfile").write_text(dockerfile)
    (context / "code" / "main.py").write_text("print(1)")
    asset = {
        "displayName": "tiny",
        "source": {"directory": "asset.x"},
        "destinations": {"here": {"imageTag": TAG}},
    }
    (paths.cloud_assembly / "s.assets.json").write_text(json.dumps({"dockerImages": {TAG: asset}}))
    return paths


def test_dockerfile_is_laid_out_without_building(tmp_path: Path) -> None:
    paths = assembly(
        tmp_path,
        'FROM base\nENV A=/opt/app B="two words"\nCOPY code /opt/app\nRUN false \\\n && false\nWORKDIR /home/me\n'
        'ENTRYPOINT ["python", "main.py"]\n',
    )
    image = load(paths, URI)
    assert image.name == "tiny"
    assert image.environment == {"A": "/opt/app", "B": "two words"}
    assert image.entrypoint == ["python", "main.py"]
    assert (image.root / "opt/app/main.py").read_text() == "print(1)"


def test_image_outlives_the_assembly_that_it_came_from(tmp_path: Path) -> None:
    paths = assembly(tmp_path, "FROM base\nCOPY code /opt/app\n")
    load(paths, URI)
    (paths.cloud_assembly / "s.assets.json").unlink()
    assert load(paths, URI).copied == ["/opt/app"]


@pytest.mark.parametrize(
    ("uri", "dockerfile", "reason"),
    [
        (URI, "FROM base\nONBUILD RUN true\n", "does not know the instruction ONBUILD"),
        (URI[:-1] + "b", "FROM base\n", "no build context with hash"),
        ("registry/app:latest", "FROM base\n", "its tag is not the hash"),
    ],
)
def test_image_that_cannot_run_here_says_why(tmp_path: Path, uri: str, dockerfile: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load(assembly(tmp_path, dockerfile), uri)


def test_missing_environment_says_how_to_make_it(tmp_path: Path) -> None:
    image = load(assembly(tmp_path, "FROM base\n"), URI)
    with pytest.raises(ImageError, match=r"\./updraft up"):
        image.python_bin(LocalPaths(tmp_path))


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/opt/app", "/host/app"),
        ("/opt/app/x.pem", "/host/app/x.pem"),
        ('{"directory": "/mnt/releases"}', '{"directory": "/host/efs"}'),
        ("/opt/app:/mnt/releases", "/host/app:/host/efs"),
        ("s3://bucket/opt/app", "s3://bucket/opt/app"),
        ("/opt/application", "/opt/application"),
        ("--host 0.0.0.0", "--host 127.77.0.3"),
        ("10.0.0.0/16", "10.0.0.0/16"),
    ],
)
def test_only_paths_that_stand_alone_are_rewritten(text: str, rewritten: str) -> None:
    places = {"/opt/app": Path("/host/app"), "/mnt/releases": Path("/host/efs")}
    assert PathMap(places, address="127.77.0.3").rewrite(text) == rewritten
