"""Runs on the notebook instance, from its lifecycle configuration: brings the notebooks, and stops the instance.

An instance that CloudFormation makes starts at once, so the first start ends by stopping it (`stop`). Every later one
brings the notebooks (`bring`) and watches Jupyter (`stop-when-idle`). Standard library and boto3 only.
"""

from __future__ import annotations

import argparse
import json
import ssl
import time
import urllib.request
import zipfile
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3

# Where the instance's own Jupyter listens; its certificate is its own, and the connection never leaves the machine.
JUPYTER_URL = "https://localhost:8443/api"
POLL_SECONDS = 60


def stop_instance(name: str, sagemaker: Any, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Stop the instance as soon as it is in service: before, SageMaker refuses it."""
    while sagemaker.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceStatus"] in (
        "Pending",
        "Updating",
    ):
        sleep(POLL_SECONDS / 6)
    sagemaker.stop_notebook_instance(NotebookInstanceName=name)


def bring(archive: bytes, folder: Path) -> list[str]:
    """Unpack the notebooks that aren't there yet; what a user has changed stays. Returns the names of the new ones."""
    new = []
    with zipfile.ZipFile(BytesIO(archive)) as files:
        for entry in files.infolist():
            target = folder / entry.filename
            if not entry.is_dir() and not target.exists():
                files.extract(entry, folder)
                new.append(entry.filename)
    return new


def idle_seconds(ask: Callable[[str], Any], *, now: float, since: float) -> float:
    """Seconds since anything ran, or since `since`; 0 while a kernel or a terminal works.

    A Jupyter that doesn't answer does nothing for anybody: it counts as idle.
    """
    try:
        kernels, terminals = ask("kernels"), ask("terminals")
    except (OSError, ValueError):
        return now - since
    if any(kernel["execution_state"] == "busy" for kernel in kernels):
        return 0.0
    times = [_seconds(each["last_activity"]) for each in [*kernels, *terminals]]
    return now - max([since, *times])


def watch(
    limit_seconds: float,
    ask: Callable[[str], Any],
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Return once nothing has run for `limit_seconds`, with how long that was."""
    started = clock()
    while (idle := idle_seconds(ask, now=clock(), since=started)) < limit_seconds:
        sleep(POLL_SECONDS)
    return idle


def ask_jupyter(what: str) -> Any:
    """What Jupyter's REST API says; raises OSError or ValueError."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(f"{JUPYTER_URL}/{what}", context=context, timeout=10) as answer:
        return json.load(answer)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main() -> None:
    """Do what the lifecycle configuration asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("stop", "stop-when-idle"):
        command = commands.add_parser(name)
        command.add_argument("--name", required=True)
        if name == "stop-when-idle":
            command.add_argument("--idle-seconds", type=float, required=True)
    command = commands.add_parser("bring")
    for option in ("--bucket", "--key", "--folder"):
        command.add_argument(option, required=True)
    arguments = parser.parse_args()
    if arguments.command == "bring":
        found = boto3.client("s3").get_object(Bucket=arguments.bucket, Key=arguments.key)
        print("new:", bring(found["Body"].read(), Path(arguments.folder)), flush=True)
        return
    if arguments.command == "stop-when-idle":
        idle = watch(arguments.idle_seconds, ask_jupyter)
        print(f"nothing has run for {idle:.0f} s: stopping", flush=True)
    stop_instance(arguments.name, boto3.client("sagemaker"))


if __name__ == "__main__":
    main()
