"""What batch transform and endpoints need of a model's container: its archive, and answers."""

from __future__ import annotations

import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.sagemaker.outcome import JobFailedError
from local.sagemaker.storage import Storage

PING_SECONDS = 2


def fetch_model(storage: Storage, container: Mapping[str, Any], directory: Path, ml: Path) -> None:
    """Put the model's files where the container looks for them; an image may carry its model itself."""
    (ml / "model").mkdir(parents=True, exist_ok=True)
    if "ModelDataUrl" not in container:
        return
    archive = directory / "model.tar.gz"
    storage.download_file(container["ModelDataUrl"], archive)
    with tarfile.open(archive) as files:
        extract(files, ml / "model")


def serving_environment(port: int, *variables: Mapping[str, str]) -> dict[str, str]:
    """The variables, later ones first, and the port that the container is to listen on."""
    merged: dict[str, str] = {}
    for each in variables:
        merged |= each
    return merged | {"SAGEMAKER_BIND_TO_PORT": str(port)}


def is_healthy(port: int) -> bool:
    """Whether the container answers `/ping` with 200 within two seconds."""
    try:
        with opener().open(f"http://127.0.0.1:{port}/ping", timeout=PING_SECONDS) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def batches(data: bytes, split_type: str, strategy: str | None, most_bytes: int) -> list[bytes]:
    """The bodies of a file's requests: one for each row, or as many rows as fit into `most_bytes`."""
    if split_type != "Line":
        return [data]
    lines = [line for line in data.splitlines(keepends=True) if line.strip()]
    if strategy == "SingleRecord":
        return lines
    batches, current = [], b""
    for line in lines:
        if current and len(current) + len(line) > most_bytes:
            batches.append(current)
            current = b""
        current += line
    return [*batches, current] if current else batches


def invoke(port: int, body: bytes, headers: dict[str, str]) -> bytes:
    """The answer of `/invocations`; raises JobFailedError with what the container says."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data=body, headers=headers)
    try:
        with opener().open(request, timeout=600) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        reason = error.read().decode(errors="replace")[:300]
        raise JobFailedError(f"AlgorithmError: /invocations answered {error.code}: {reason}") from error


def opener() -> urllib.request.OpenerDirector:
    """An opener that asks no proxy: the container listens on the loopback."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def extract(files: tarfile.TarFile, folder: Path) -> None:
    """Unpack without leaving the folder; the `data` filter came with Python 3.11.4."""
    if hasattr(tarfile, "data_filter"):
        files.extractall(folder, filter="data")
        return
    for member in files.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not (member.isfile() or member.isdir()) or not inside:
            raise ValueError(f"{member.name} is no plain file inside the archive")
    files.extractall(folder)
