"""The ElastiCache data plane: a real Redis for every node group of the account."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local import tls_front
from local.broker.server import RedisServer, check_token
from local.embedded import EmbeddedServer, front_argv, remove_sockets
from local.ports import stable_port

if TYPE_CHECKING:
    from local.paths import LocalPaths

FIRST_PORT = 16379


@dataclass(frozen=True)
class NodeGroup:
    """One shard of a replication group; without `tokens` it is open to whoever reaches it."""

    identifier: str
    tokens: tuple[str, ...]


@dataclass
class _Running:
    server: RedisServer
    processes: EmbeddedServer


class BrokerPlane:
    """Starts, stops and removes the servers; `node_groups()` names those that should run at the start."""

    name = "broker"

    def __init__(
        self, *, paths: LocalPaths, logger: logging.Logger, node_groups: Callable[[], Iterable[NodeGroup]]
    ) -> None:
        self._paths = paths
        self._logger = logger
        self._node_groups = node_groups
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, str] = {}
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the servers of all node groups that the account knows.

        Raises RuntimeError naming the first that doesn't start: without its broker, no worker gets healthy.
        """
        for node_group in self._node_groups():
            try:
                self.start_node_group(node_group)
            except (OSError, RuntimeError, ValueError) as error:
                raise RuntimeError(f"broker {node_group.identifier}: {error}") from error

    def stop(self) -> None:
        """Stop all servers; their data stays."""
        for identifier in list(self._running):
            self._stop_node_group(identifier)

    def state(self) -> str:
        """Return `ready`, or what is wrong."""
        with self._lock:
            wrong = [f"{name}: {reason}" for name, reason in self._failures.items()]
            wrong += [f"{name}: down" for name, it in self._running.items() if not it.processes.running]
        return "; ".join(wrong) if wrong else "ready"

    def start_node_group(self, node_group: NodeGroup) -> int:
        """Start the node group's server and return the TLS port on 127.0.0.1 of its endpoint.

        Raises ValueError for a token that ElastiCache refuses, RuntimeError or TimeoutError when Redis
        does not start.
        """
        for token in node_group.tokens:
            check_token(token)
        with self._lock:
            self._stop_node_group(node_group.identifier)
            folder = self._folder(node_group.identifier)
            port = stable_port(folder, first=FIRST_PORT)
            try:
                self._running[node_group.identifier] = self._launch(node_group, folder, port)
            except Exception as error:
                self._failures[node_group.identifier] = str(error)
                raise
        self._logger.info("broker %s: ready on 127.0.0.1:%d", node_group.identifier, port)
        return port

    def delete_node_group(self, identifier: str) -> None:
        """Stop the node group's server and remove its data."""
        with self._lock:
            self._stop_node_group(identifier)
            shutil.rmtree(self._folder(identifier), ignore_errors=True)

    def set_tokens(self, identifier: str, tokens: Sequence[str]) -> None:
        """Let exactly these tokens in, without a restart. Raises RuntimeError when it does not run."""
        with self._lock:
            running = self._running.get(identifier)
            if running is None:
                raise RuntimeError(f"node group {identifier} does not run: {self._failures.get(identifier)}")
            running.server.set_tokens(tokens)

    def _stop_node_group(self, identifier: str) -> None:
        with self._lock:
            running = self._running.pop(identifier, None)
            self._failures.pop(identifier, None)
            if running is not None:
                running.processes.stop()
                remove_sockets(self._folder(identifier))

    def _folder(self, identifier: str) -> Path:
        return self._paths.broker / identifier

    def _launch(self, node_group: NodeGroup, folder: Path, port: int) -> _Running:
        server = RedisServer(folder=folder, sockets=tls_front.socket_folder(folder))
        server.configure(node_group.tokens)
        processes = EmbeddedServer(
            paths=self._paths,
            name=f"broker-{node_group.identifier}",
            port=port,
            server_argv=server.command(),
            front_argv=front_argv(
                "local.broker.front", paths=self._paths, port=port, server_socket=server.socket
            ),
            ready=server.wait_until_ready,
            prepare=server.prepare_start,
        )
        processes.start()
        return _Running(server=server, processes=processes)
