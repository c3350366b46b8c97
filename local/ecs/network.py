"""Addresses of tasks, and the forwarder that stands for the tunnel through the bastion."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable

from local.paths import LocalPaths

FIRST, LAST = 2, 250 * 250
START_SECONDS = 10


class Addresses:
    """One loopback address for each task; on macOS, which has only 127.0.0.1, all share it."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}
        self._next = FIRST

    def take(self, task_arn: str) -> str:
        """An address that no living task has."""
        if sys.platform == "darwin":
            return "127.0.0.1"
        while True:
            address = f"127.77.{self._next // 250}.{self._next % 250 + 1}"
            self._next = FIRST if self._next >= LAST else self._next + 1
            if address not in self._taken.values():
                self._taken[task_arn] = address
                return address

    def give_back(self, task_arn: str) -> None:
        """Free a stopped task's address."""
        self._taken.pop(task_arn, None)


class Tunnel:
    """Listens on the UIs' ports and forwards to a healthy task of the service behind each.

    On macOS, where a task listens on 127.0.0.1 itself, its own port needs no forwarder and leaves it no room.
    """

    def __init__(self, paths: LocalPaths, names: Callable[[], dict[str, list[str]]]) -> None:
        self._names = names
        self._ports = {
            paths.webserver_port: ("webserver", 8080),
            paths.flower_port: ("flower", 5555),
            paths.mlflow_port: ("mlflow", 5000),
        }
        if sys.platform == "darwin":
            self._ports = {port: to for port, to in self._ports.items() if port != to[1]}
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="tunnel", daemon=True)

    def start(self) -> None:
        """Listen; raises OSError when a port is taken."""
        self._thread.start()
        self._listening.wait(START_SECONDS)
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """Close every connection and listener."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            for port in self._ports:
                self._loop.run_until_complete(self._listen(port))
        except OSError as error:
            self._failure = error
        self._listening.set()
        if not self._failure:
            self._loop.run_forever()

    async def _listen(self, port: int) -> None:
        service, target_port = self._ports[port]

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            address = self._address_of(service)
            if address is None:
                writer.close()
                return
            try:
                far_reader, far_writer = await asyncio.open_connection(address, target_port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

        await asyncio.start_server(forward, "127.0.0.1", port)

    def _address_of(self, service: str) -> str | None:
        for name, addresses in self._names().items():
            if name.partition(".")[0] == service and addresses:
                return addresses[0]
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
