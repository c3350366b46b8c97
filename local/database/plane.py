"""The RDS data plane: a real PostgreSQL for every DB instance of the account."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from local import tls_front
from local.database import roles
from local.database.server import Master, PostgresServer, check_master_user, memory_bytes
from local.database.verifier import TokenVerifier
from local.embedded import EmbeddedServer, front_argv, remove_sockets
from local.ports import stable_port

if TYPE_CHECKING:
    from local.paths import LocalPaths

FIRST_PORT = 15432
READY_SECONDS = 30

Log = logging.Logger


@dataclass(frozen=True)
class InstanceSpec:
    """What of a DB instance's record the data plane needs.

    `instance_class` as in `db.t4g.micro`; `check_token(user, token)` says whether a presigned token opens
    this instance for that role.
    """

    identifier: str
    instance_class: str
    master: Master
    check_token: Callable[[str, str], bool]


@dataclass
class _Running:
    server: PostgresServer
    processes: EmbeddedServer
    verifier: TokenVerifier


class DatabasePlane:
    """Starts, stops and removes the servers; `instances()` names those that should run at the start.

    Ports are chosen from `first_port` on.
    """

    name = "database"

    def __init__(
        self,
        *,
        paths: LocalPaths,
        logger: Log,
        instances: Callable[[], Iterable[InstanceSpec]],
        first_port: int = FIRST_PORT,
    ) -> None:
        self._paths = paths
        self._logger = logger
        self._instances = instances
        self._first_port = first_port
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, str] = {}
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the servers of all instances that the account knows as available.

        Raises RuntimeError naming the first that doesn't start: without its database, no service gets healthy.
        """
        for spec in self._instances():
            try:
                self.start_instance(spec)
            except (OSError, RuntimeError, ValueError) as error:
                raise RuntimeError(f"database {spec.identifier}: {error}") from error

    def stop(self) -> None:
        """Stop all servers; their data stays."""
        for identifier in list(self._running):
            self.stop_instance(identifier)

    def state(self) -> str:
        """Return `ready`, or what is wrong."""
        with self._lock:
            wrong = [f"{name}: {reason}" for name, reason in self._failures.items()]
            wrong += [f"{name}: down" for name, it in self._running.items() if not it.processes.running]
        return "; ".join(wrong) if wrong else "ready"

    def port(self, identifier: str) -> int:
        """Return the port on 127.0.0.1 that is the instance's own for as long as it exists."""
        return stable_port(self._folder(identifier), first=self._first_port)

    def start_instance(self, spec: InstanceSpec) -> int:
        """Start the instance's server, made first when it is new, and return the port of its endpoint.

        Raises ValueError for a class or a user name that RDS would refuse, RuntimeError or TimeoutError
        when PostgreSQL does not start.
        """
        check_master_user(spec.master.user)
        memory = memory_bytes(spec.instance_class)
        with self._lock:
            self.stop_instance(spec.identifier)
            try:
                self._running[spec.identifier] = self._launch(spec, memory)
            except Exception as error:
                self._failures[spec.identifier] = str(error)
                raise
            self._failures.pop(spec.identifier, None)
            return self.port(spec.identifier)

    def stop_instance(self, identifier: str) -> None:
        """Stop the instance's server; nothing happens when it does not run."""
        with self._lock:
            running = self._running.pop(identifier, None)
            self._failures.pop(identifier, None)
            if running is not None:
                running.processes.stop()
                running.verifier.close()
                remove_sockets(self._folder(identifier))

    def delete_instance(self, identifier: str) -> None:
        """Stop the instance's server and remove its data."""
        with self._lock:
            self.stop_instance(identifier)
            shutil.rmtree(self._folder(identifier), ignore_errors=True)

    def set_master_password(self, identifier: str, *, user: str, password: str) -> None:
        """Change the master's password. Raises RuntimeError when the instance does not run."""
        with self._lock:
            running = self._running.get(identifier)
            if running is None:
                raise RuntimeError(f"DB instance {identifier} does not run; start it first")
            roles.set_password(running.server, user=user, password=password)

    def _folder(self, identifier: str) -> Path:
        return self._paths.database / identifier

    def _launch(self, spec: InstanceSpec, memory: int) -> _Running:
        folder = self._folder(spec.identifier)
        port = self.port(spec.identifier)
        sockets = tls_front.socket_folder(folder)
        server = PostgresServer(folder=folder, sockets=sockets)
        if not server.initialized:
            server.initialize(master_user=spec.master.user)
        verifier_socket = sockets / "tokens"

        def ready() -> None:
            roles.wait_until_ready(server, timeout_seconds=READY_SECONDS)

        processes = EmbeddedServer(
            paths=self._paths,
            name=f"database-{spec.identifier}",
            port=port,
            server_argv=server.command(memory_bytes=memory),
            front_argv=front_argv(
                "local.database.front",
                paths=self._paths,
                port=port,
                server_socket=server.socket,
                verifier_socket=verifier_socket,
            ),
            ready=ready,
            prepare=server.prepare_start,
        )
        verifier = TokenVerifier(path=verifier_socket, check=spec.check_token)
        try:
            processes.start()
            roles.ensure_master(server, spec.master)
        except BaseException:
            processes.stop()
            verifier.close()
            raise
        self._logger.info("database %s: ready on 127.0.0.1:%d", spec.identifier, port)
        return _Running(server=server, processes=processes, verifier=verifier)
