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
from botocore.exceptions import BotoCoreError, ClientError

# Where the instance's own Jupyter listens; its certificate is its own, and the connection never leaves the machine.
JUPYTER_URL = "https://localhost:8443/api"
POLL_SECONDS = 60


def stop_instance(
    name: str,
    sagemaker: Any,
    *,
    wait: Callable[[], object] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stop the instance once `wait` has returned and it is in service: before, SageMaker refuses it.

    A failure is never the last try, since nothing else may be there to stop it: the VPC can be without a way out for a
    night. `wait` is called anew before each try, so that nobody who works again by then is cut off.
    """
    while True:
        wait()
        try:
            while sagemaker.describe_notebook_instance(NotebookInstanceName=name)[
                "NotebookInstanceStatus"
            ] in ("Pending", "Updating"):
                sleep(POLL_SECONDS / 6)
            sagemaker.stop_notebook_instance(NotebookInstanceName=name)
            return
        except (BotoCoreError, ClientError) as error:
            print(f"not stopped, trying again: {error}", flush=True)
            sleep(POLL_SECONDS)


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
    since: float,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once nothing has run for `limit_seconds`, counted from `since` at the earliest."""
    while (idle := idle_seconds(ask, now=clock(), since=since)) < limit_seconds:
        sleep(POLL_SECONDS)
    print(f"nothing has run for {idle:.0f} s: stopping", flush=True)


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
    sagemaker = boto3.client("sagemaker")
    if arguments.command == "stop":
        stop_instance(arguments.name, sagemaker)
        return
    started = time.time()
    stop_instance(
        arguments.name,
        sagemaker,
        wait=lambda: watch(arguments.idle_seconds, ask_jupyter, since=started),
    )


if __name__ == "__main__":
    main()
