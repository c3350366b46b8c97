"""The account's one process: the emulator's HTTP server, our patches, and the planes behind it."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import signal
import sys
import threading
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from ministack import app as ministack_app  # type: ignore[import-untyped]
from ministack.core import router  # type: ignore[import-untyped]

from local import faults, processes
from local.account import patches, permission_record, recovery, resources
from local.account.context import AccountContext, Plane
from local.account.saving import StateSaver
from local.paths import LocalPaths

# In this order they start, in the reverse one they stop.
PLANES: tuple[str, ...] = ("database", "broker", "ecs", "codedeploy", "sagemaker", "codebuild")
GRACE_SECONDS = 5
READY_PATH = "/_updraft/ready"
PLANE_START_SECONDS = 60


class Account:
    """Serves the API, starts and stops the planes."""

    def __init__(self, paths: LocalPaths) -> None:
        self._logger = logging.getLogger("updraft")
        self._context = AccountContext(paths=paths, logger=self._logger)
        self._paths = paths
        self._ready = False
        self._failure: str | None = None
        self._stop = asyncio.Event()
        self._planes: list[Plane] = []

    def install(self) -> None:
        """Apply our patches and additions before the first request."""
        patches.install(self._context)
        self._context.permissions.install()
        resources.install(self._context)
        for name in PLANES:
            self._planes.append(importlib.import_module(f"local.{name}").install(self._context))

    async def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        threading.Thread(target=self._start_planes, name="start-planes", daemon=True).start()
        saver = StateSaver(self._paths.account / "state", self._logger)
        self._saving = asyncio.create_task(saver.run(also=self._context.permissions.save))
        config = Config()
        config.bind = [f"127.0.0.1:{self._paths.port}"]
        config.keep_alive_timeout = 75
        config.graceful_timeout = GRACE_SECONDS
        config.loglevel = "WARNING"
        await hypercorn_serve(self._answer, config, shutdown_trigger=self._stopped)  # type: ignore[arg-type]
        return 1 if self._failure else 0

    async def _stopped(self) -> None:
        await self._stop.wait()
        # While the planes stop, their processes still need the API.
        await asyncio.to_thread(self._stop_planes)
        # The emulator saves all at its end, and nothing older may come over that.
        self._saving.cancel()
        await asyncio.wait([self._saving])

    async def _answer(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        if scope["type"] == "http" and scope["path"] == READY_PATH:
            planes = {plane.name: plane.state() for plane in self._planes}
            content = {"planes": planes, "state_directory": str(self._paths.root)}
            await _send_json(send, 200 if self._ready else 503, content)
        elif scope["type"] == "http" and scope["path"] == faults.PATH:
            await _send_json(send, *await self._answer_faults(scope["method"], receive))
        elif scope["type"] == "http" and scope["path"] == permission_record.PATH:
            await _send_json(send, *await self._answer_permissions(scope["method"]))
        elif scope["type"] == "http" and self._context.faults.throttles(_target(scope)):
            await _send_body(send, 400, faults.THROTTLED)
        elif scope["type"] == "http" and self._context.faults.leaves_unanswered(_target(scope)):
            await self._answer_with_failure(scope, receive, send)
        else:
            await ministack_app.app(scope, receive, send)

    async def _answer_with_failure(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Do what is asked; who asked hears of an internal error, unless it was refused."""
        answer: list[dict[str, Any]] = []

        async def keep(message: dict[str, Any]) -> None:
            answer.append(message)

        await ministack_app.app(scope, receive, keep)
        if answer[0]["status"] == 200:
            await _send_body(send, 500, faults.INTERNAL_FAILURE)
            return
        for message in answer:
            await send(message)

    async def _answer_faults(
        self, method: str, receive: Callable[[], Awaitable[Any]]
    ) -> tuple[int, dict[str, Any]]:
        switch = self._context.faults
        if method == "PUT":
            try:
                await asyncio.to_thread(switch.put, await _body(receive))
            except ValueError as error:
                return 400, {"error": str(error)}
        return 200, switch.document()

    async def _answer_permissions(self, method: str) -> tuple[int, dict[str, Any]]:
        recorded = self._context.permissions
        if method == "DELETE":
            recorded.forget()
        return 200, await asyncio.to_thread(recorded.document)

    def _start_planes(self) -> None:
        try:
            self._wait_for_api()
            for plane in self._planes:
                plane.start()
            recovery.go_on(self._context)
            self._ready = True
        except Exception as error:
            self._logger.exception("a plane did not start")
            self._failure = str(error)
            print(f"updraft: the emulated account did not start: {error}", file=sys.stderr, flush=True)
            self._stop_from_thread()

    def _stop_from_thread(self) -> None:
        loop = ministack_app._MAIN_LOOP
        if loop is not None:
            loop.call_soon_threadsafe(self._stop.set)

    def _wait_for_api(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(PLANE_START_SECONDS * 10):
            try:
                opener.open(f"{self._paths.endpoint_url}/_ministack/health", timeout=2).close()
                return
            except OSError:
                threading.Event().wait(0.1)
        raise TimeoutError("the emulator's API does not answer")

    def _stop_planes(self) -> None:
        for plane in reversed(self._planes):
            try:
                plane.stop()
            except Exception:
                self._logger.exception("plane %s did not stop cleanly", plane.name)


def _target(scope: dict[str, Any]) -> str:
    found = (value for name, value in scope["headers"] if name == b"x-amz-target")
    return str(next(found, b""), "latin-1")


async def _body(receive: Callable[[], Awaitable[Any]]) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _send_json(
    send: Callable[[dict[str, Any]], Awaitable[None]], status: int, content: dict[str, Any]
) -> None:
    await _send_body(send, status, json.dumps(content).encode())


async def _send_body(send: Callable[[dict[str, Any]], Awaitable[None]], status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(paths: LocalPaths) -> int:
    """Run the account on these paths until it is told to stop."""
    paths.make_root()
    for directory in (paths.run, paths.log, paths.account / "state", paths.account / "s3"):
        directory.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    logging.getLogger("updraft").setLevel(logging.INFO)
    # What an account that was killed left running holds ports and files that this one needs. A SageMaker job goes on:
    # its instance is a process of its own that the host finds again.
    processes.reap(paths, keep=("account", "cdk", "sagemaker-"))
    # Knowing every AWS service by name would load botocore's model of each: 400 MB.
    router._KNOWN_AWS_SERVICE_NAMES = frozenset(ministack_app.SERVICE_HANDLERS) | {
        "codedeploy",
        "sagemaker",
        "codebuild",
    }

    async def run() -> int:
        account = Account(paths)
        account.install()
        return await account.run()

    return asyncio.run(run())
