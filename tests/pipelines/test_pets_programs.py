"""The pets' programs under SageMaker's container contract, and the application around what they make; no platform."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ops.bootstrap import ROOT, ensure_environment, environment_python

SECONDS = 180
SMALL = {"--pictures": "300", "--seed": "3"}
SIZE = "32"


@pytest.fixture(scope="session", autouse=True)
def _environments() -> None:
    for image in ("pets-training", "pets-application"):
        ensure_environment(image)


def program(name: str, root: Path, *arguments: str, code: int = 0) -> str:
    """Run a program of the training image; returns what it printed, or its failure where it ends with 1."""
    ran = subprocess.run(
        [environment_python("pets-training"), "-m", "ml.pets.container", name, *arguments],
        cwd=ROOT,
        env=environment(root),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ran.returncode == code, ran.stderr[-2000:]
    return ran.stdout if code == 0 else (root / "output" / "failure").read_text()


def environment(root: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "ML_ROOT": str(root), "PYTHONPATH": str(ROOT), "HOME": str(root)}


def move(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return source.rename(target)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container's root after `fetch` without a source."""
    root = tmp_path_factory.mktemp("fetch")
    assert "300 pictures" in program("fetch", root, *(word for pair in SMALL.items() for word in pair))
    return root / "processing" / "output" / "pets"


@pytest.fixture(scope="module")
def prepared(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three parts that `transform` made of the drawn pictures."""
    root = tmp_path_factory.mktemp("transform")
    (root / "processing" / "input").mkdir(parents=True)
    (root / "processing" / "input" / "pets").symlink_to(drawn)
    told = program("transform", root, "--size", SIZE)
    counts = [int(count) for count in re.findall(r"'(?:cat|dog)': (\d+)", told)]
    assert sum(counts) == 300
    return root / "processing" / "output"


def training_root(prepared: Path, root: Path, **hyperparameters: str) -> Path:
    for channel in ("train", "validation"):
        (root / "input" / "data").mkdir(parents=True, exist_ok=True)
        (root / "input" / "data" / channel).symlink_to(prepared / channel)
    (root / "checkpoints").mkdir()
    (root / "input" / "config").mkdir()
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    return root


@pytest.fixture(scope="module")
def trained(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a short training."""
    root = training_root(prepared, tmp_path_factory.mktemp("train"), epochs="2", learning_rate='"0.002"')
    told = program("train", root)
    assert re.search(r"epoch=2 train-loss=\d+\.\d+ validation-accuracy=\d\.\d+", told)
    return root / "model"


def test_same_seed_draws_the_same_pictures(drawn: Path, tmp_path: Path) -> None:
    program("fetch", tmp_path, *(word for pair in SMALL.items() for word in pair))
    again = tmp_path / "processing" / "output" / "pets"
    for name in ("Tabby_0", "terrier_299"):
        file = Path("images") / f"{name}.jpg"
        assert (again / file).read_bytes() == (drawn / file).read_bytes()


def test_source_in_the_layout_is_taken_thinned_out(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "processing" / "input").mkdir(parents=True)
    (tmp_path / "processing" / "input" / "source").symlink_to(drawn)
    assert "100 pictures" in program("fetch", tmp_path, "--pictures", "100")
    lines = (tmp_path / "processing/output/pets/annotations/list.txt").read_text().splitlines()
    species = [line.split()[2] for line in lines if not line.startswith("#")]
    assert len(species) == 100


@contextlib.contextmanager
def published(folder: Path) -> Iterator[str]:
    """An HTTP server over a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_archives_of_the_datas_makers_are_unpacked_and_nothing_else(drawn: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with tarfile.open(site / "images.tar.gz", "w:gz", compresslevel=1) as files:
        files.add(drawn / "images", "images")
        files.add(drawn / "annotations" / "list.txt", "../../escaped.txt")
    with tarfile.open(site / "annotations.tar.gz", "w:gz") as files:
        files.add(drawn / "annotations", "./annotations")
    with published(site) as url:
        assert "300 pictures" in program("fetch", tmp_path / "ml", "--pictures", "5000", "--url", url)
    assert not list(tmp_path.rglob("escaped.txt"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda root: (root / "annotations" / "list.txt").unlink(), "annotations/list.txt is not there"),
        (lambda root: (root / "annotations" / "list.txt").write_text("Tabby_0 1 3 1\n"), "line 1: 'Tabby_0 1 3 1'"),
        (lambda root: [file.write_bytes(b"x") for file in sorted((root / "images").iterdir())[:20]],
         "20 of 300 pictures can't be read"),
        (lambda root: [file.unlink() for file in (root / "images").glob("terrier*")], "of a dog for train"),
    ],
)  # fmt: skip
def test_bad_data_is_refused_with_what_is_wrong(drawn: Path, tmp_path: Path, spoil: Any, reason: str) -> None:
    import shutil

    root = tmp_path / "processing" / "input" / "pets"
    shutil.copytree(drawn, root)
    spoil(root)
    assert reason in program("transform", tmp_path, "--size", SIZE, code=1)


def test_interrupted_training_keeps_what_it_has_and_ends_well(prepared: Path, tmp_path: Path) -> None:
    root = training_root(prepared, tmp_path, epochs="50")
    process = subprocess.Popen(
        [environment_python("pets-training"), "-m", "ml.pets.container", "train"],
        cwd=ROOT,
        env=environment(root),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline().startswith("epoch=1 ")
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert process.wait(SECONDS) == 0
    assert "epoch=50" not in rest
    assert (root / "model" / "model.onnx").stat().st_size > 10**6


@pytest.mark.parametrize(
    ("hyperparameters", "reason"),
    [({"epoch": "1"}, "unknown hyper-parameters epoch"), ({"epochs": "0"}, "epochs: 0 came")],
)
def test_wrong_hyperparameter_fails_the_training(
    prepared: Path, tmp_path: Path, hyperparameters: dict[str, str], reason: str
) -> None:
    assert reason in program("train", training_root(prepared, tmp_path, **hyperparameters), code=1)


def test_validation_reports_model_and_baseline(prepared: Path, trained: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "processing" / "input"
    (inputs / "model").mkdir(parents=True)
    for part in ("train", "heldout"):
        (inputs / part).symlink_to(prepared / part)
    with tarfile.open(inputs / "model" / "model.tar.gz", "w:gz", compresslevel=1) as files:
        for file in trained.iterdir():
            files.add(file, file.name)
    program("validate", tmp_path)
    report = json.loads((tmp_path / "processing/output/evaluation/evaluation.json").read_text())
    assert 0.0 <= report["accuracy"] <= 1.0
    assert report["baseline"]["accuracy"] <= 0.7
    assert set(report["accuracy_by_label"]) == {"cat", "dog"}
    assert report["example"]["label"] == ("cat" if report["example"]["name"].startswith("Tabby") else "dog")


@pytest.fixture(scope="module")
def application(trained: Path) -> Iterator[str]:
    """The application around the short training's model."""
    with socket.socket() as probe:
        # Its port is fixed, as in its container.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 8000))
    process = subprocess.Popen(
        [environment_python("pets-application"), "-m", "ml.pets.application"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PETS_MODEL": str(trained)},
    )
    url = "http://127.0.0.1:8000"
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/health", timeout=5).ok:
                break
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield url
    process.terminate()
    assert process.wait(30) in (0, -signal.SIGTERM)


def test_picture_is_answered_with_label_and_probability(application: str, drawn: Path) -> None:
    picture = (drawn / "images" / "Tabby_0.jpg").read_bytes()
    answer = requests.post(
        f"{application}/predict", files={"picture": ("a.jpg", picture, "image/jpeg")}, timeout=30
    )
    assert answer.status_code == 200
    assert answer.json()["label"] in ("cat", "dog")
    assert 0.5 <= answer.json()["probability"] <= 1


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ({"files": {"picture": ("a", b"no picture", "image/png")}}, 422, "this is no JPEG or PNG picture"),
        ({"files": {"picture": ("a", b"GIF89a", "image/gif")}}, 415, "image/gif came"),
        ({"files": {"photo": ("a", b"x", "image/png")}}, 400, "'picture' is missing; photo came"),
        ({"files": {"picture": ("a", b"", "image/png")}}, 400, "is empty"),
        ({"files": [("picture", ("a", b"x", "image/png"))] * 2}, 400, "Too many files"),
        ({"data": {"picture": "x"}}, 415, "send multipart/form-data"),
        ({"files": {"picture": ("a", b"x" * 6 * 2**20, "image/png")}}, 413, "at most 5242880 bytes"),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(
    application: str, request_: dict[str, Any], status: int, reason: str
) -> None:
    answer = requests.post(f"{application}/predict", timeout=30, **request_)
    assert (answer.status_code, reason in answer.json()["error"]) == (status, True)


def test_body_that_hides_its_length_is_refused_too(application: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100_000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = requests.post(f"{application}/predict", data=endless(), headers=headers, timeout=30)
    except requests.ConnectionError:
        return  # hung up on while it was still sending
    assert answer.status_code == 413


def test_health_check_of_the_container_tells_the_truth(application: str) -> None:
    check: list[str | Path] = [environment_python("pets-application"), "-m", "ml.pets.application", "--check"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    assert application
    assert subprocess.run(check, cwd=ROOT, env=env, check=False).returncode == 0
