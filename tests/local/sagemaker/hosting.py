"""A host with a bare emulator (S3, logs) behind it, and an image whose program each test chooses."""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from local.account.__main__ import settings
from local.account.context import AccountContext
from local.account.json_api import ApiError
from local.paths import ROOT, LocalPaths
from local.sagemaker.plane import SageMakerPlane
from local.sagemaker.service import JOBS, SageMakerService
from local.sagemaker.storage import client
from local.sagemaker.store import Store

EMULATOR = """
import asyncio, sys
from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack import app
config = Config()
config.bind = [f"127.0.0.1:{sys.argv[1]}"]
config.loglevel = "ERROR"
asyncio.run(serve(app.app, config))
"""
TAG = "a" * 64
IMAGE = f"000000000000.dkr.ecr.us-east-1.amazonaws.com/images:{TAG}"
ENDED = ("Completed", "Failed", "Stopped")
LIMIT_SECONDS = 40


class Emulator:
    """S3 and CloudWatch Logs on a port of their own; can be taken away and brought back."""

    def __init__(self, paths: LocalPaths) -> None:
        self._paths = paths
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for folder in ("state", "s3"):
            (self._paths.account / folder).mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-c", EMULATOR, str(self._paths.port)],
            # The hosts of these tests give out credentials in their own process: this one can't know them.
            env=os.environ | settings(self._paths) | {"AUTH": "false"},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def answers() -> bool:
            with contextlib.suppress(OSError):
                opener.open(f"{self._paths.endpoint_url}/_ministack/health", timeout=1).close()
                return True
            return False

        wait_until(answers, "the emulator answers")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


class Client:
    """The part of boto3's client that needs no network: operations by boto3's names, errors as boto3 raises them.

    `lost` names operations whose next answer gets lost after the host has done what was asked.
    """

    def __init__(self, call: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._call = call
        self.lost: set[str] = set()
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., dict[str, Any]]:
        operation = "".join(word.capitalize() for word in name.split("_"))

        def ask(**request: Any) -> dict[str, Any]:
            self.asked.append(operation)
            try:
                answer = self._call(operation, request)
            except ApiError as error:
                raise ClientError(
                    {"Error": {"Code": error.code, "Message": str(error)}}, operation
                ) from error
            if operation in self.lost:
                self.lost.remove(operation)
                raise ReadTimeoutError(endpoint_url="https://api.sagemaker.us-east-1.amazonaws.com")
            return answer

        return ask

    def get_paginator(self, name: str) -> Any:
        """One page is all that tests have."""
        return SimpleNamespace(paginate=lambda **request: [getattr(self, name)(**request)])


class Host:
    """The host as the account has it, and short ways to use it."""

    def __init__(self, paths: LocalPaths, emulator: Emulator) -> None:
        self.paths = paths
        self.emulator = emulator
        self.s3 = client(paths, "s3")
        self.logs = client(paths, "logs")
        self.open()

    def open(self) -> None:
        """A host on the state that is on disk, as after a start of the account."""
        store = Store(self.paths.sagemaker / "state.json")
        self.store = store
        self.service = SageMakerService(store, account_id="000000000000", region="us-east-1")
        context = AccountContext(paths=self.paths, logger=logging.getLogger("host"))
        self.plane = SageMakerPlane(context, store, self.service)
        self.plane.start()

    def vanish(self) -> None:
        """End the host's thread and forget what it knows, as a SIGKILL of the account does."""
        self.plane._stopping.set()
        self.plane._thread.join()

    def program(self, source: str) -> None:
        """What the image's entry point runs."""
        root = self.paths.images / TAG / "root" / "opt" / "program"
        root.mkdir(parents=True, exist_ok=True)
        (root / "main.py").write_text(source)
        described = {
            "name": "tools",
            "environment": {"ML_ROOT": "/opt/ml"},
            "workdir": "/opt/program",
            "entrypoint": ["python", "-u", "/opt/program/main.py"],
            "copied": ["/opt/program"],
        }
        (self.paths.images / TAG / "image.json").write_text(json.dumps(described))

    def put(self, key: str, body: bytes) -> str:
        """An object in the bucket; returns its URI."""
        self.s3.put_object(Bucket="data", Key=key, Body=body)
        return f"s3://data/{key}"

    def get(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def describe(self, kind: str, name: str) -> dict[str, Any]:
        return self.service.call(f"Describe{kind}", {JOBS[kind][0]: name})

    def ended(self, kind: str, name: str) -> dict[str, Any]:
        """The job's description once it has ended."""
        wait_until(lambda: self.describe(kind, name)[JOBS[kind][3]] in ENDED, f"{kind} {name} ends")
        return self.describe(kind, name)

    def reached(self, name: str, secondary: str) -> None:
        """Wait until a training is in a secondary status."""
        wait_until(
            lambda: self.describe("TrainingJob", name)["SecondaryStatus"] == secondary, f"{name}: {secondary}"
        )

    def sleep(self, seconds: float) -> None:
        """How long something is away; not a wait for anything."""
        time.sleep(seconds)

    def wait_for_line(self, group: str, name: str, line: str) -> None:
        """Wait until a job has logged a line."""
        wait_until(lambda: line in self.logged(group, name), f"{name} logs {line!r}")

    def logged(self, group: str, name: str) -> list[str]:
        """The lines of a job's streams."""
        try:
            streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")
        except self.logs.exceptions.ResourceNotFoundException:
            return []
        return [
            event["message"]
            for stream in streams["logStreams"]
            for event in self.logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])[
                "events"
            ]
        ]


def wait_until(done: Callable[[], bool], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    deadline = time.monotonic() + limit_seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_seconds} s: {what}")
        time.sleep(0.05)
