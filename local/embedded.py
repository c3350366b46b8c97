"""An embedded server and the TLS front before it, kept running as children of the account."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from local import processes, tls_front
from local.certificates import ensure_server_certificate
from local.ports import check_port_is_free

if TYPE_CHECKING:
    from local.paths import LocalPaths

SUPERVISION_SECONDS = 0.5
FRONT_READY_SECONDS = 20
# Servers get this long to write what they hold; PostgreSQL's last checkpoint takes well under a second.
STOP_SECONDS = 15


class EmbeddedServer:
    """Two processes: `server_argv` on a Unix socket, and a front on 127.0.0.1:`port`.

    `prepare` runs before each start of the server, while it does not run. `ready` returns when the server
    answers on its socket and raises TimeoutError when it does not.
    """

    def __init__(
        self,
        *,
        paths: LocalPaths,
        name: str,
        port: int,
        server_argv: list[str],
        front_argv: list[str],
        ready: Callable[[], None],
        prepare: Callable[[], None],
    ) -> None:
        self._paths = paths
        self._name = name
        self._port = port
        self._argv = {f"{name}-server": server_argv, f"{name}-front": front_argv}
        self._ready = ready
        self._prepare = prepare
        self._lock = threading.RLock()
        self._wanted = False
        self._watch: threading.Thread | None = None

    def start(self) -> None:
        """Start both processes and return when a client can connect.

        Raises RuntimeError when something else listens on the port, TimeoutError when a process does not
        get ready; nothing is left running then.
        """
        with self._lock:
            self._kill()
            check_port_is_free(self._port)
            try:
                self._start_missing()
            except BaseException:
                self._kill()
                raise
            self._wanted = True
        if self._watch is None or not self._watch.is_alive():
            self._watch = threading.Thread(target=self._supervise, name=self._name, daemon=True)
            self._watch.start()

    def stop(self) -> None:
        """Stop both processes, the front first, so that the server sees its clients leave."""
        with self._lock:
            self._wanted = False
            self._kill()

    @property
    def running(self) -> bool:
        """Whether both processes live."""
        return all(processes.is_running(self._paths, name) for name in self._argv)

    def _kill(self) -> None:
        for name in reversed(self._argv):
            processes.stop(self._paths, name, timeout_seconds=STOP_SECONDS)

    def _start_missing(self) -> None:
        server, front = self._argv
        if not processes.is_running(self._paths, server):
            self._prepare()
            self._run(server)
            self._ready()
        if not processes.is_running(self._paths, front):
            self._run(front)
            _wait_for_port(self._port, log=self._log(front))

    def _run(self, name: str) -> None:
        process = processes.start(
            self._paths, name, self._argv[name], log_file=self._log(name), working_directory=project_root()
        )
        # Reaped as soon as it ends, so that it is never a zombie.
        threading.Thread(target=process.wait, daemon=True).start()

    def _log(self, name: str) -> Path:
        return self._paths.log / f"{name}.log"

    def _supervise(self) -> None:
        """Start again what died: a managed service does not stay down after a crash either."""
        while True:
            time.sleep(SUPERVISION_SECONDS)
            with self._lock:
                if not self._wanted:
                    return
                try:
                    self._start_missing()
                except (OSError, RuntimeError, TimeoutError) as error:
                    print(f"{self._name}: not restarted: {error}", file=sys.stderr, flush=True)


def front_argv(
    module: str, *, paths: LocalPaths, port: int, server_socket: Path, verifier_socket: Path | None = None
) -> list[str]:
    """Return the argument vector of a front that holds the local authority's server certificate."""
    certificate = ensure_server_certificate(paths)
    argv = [sys.executable, "-m", module, "--port", str(port)]
    argv += ["--certificate", str(certificate.certificate), "--key", str(certificate.key)]
    argv += ["--server-socket", str(server_socket)]
    return argv if verifier_socket is None else [*argv, "--verifier-socket", str(verifier_socket)]


def remove_sockets(folder: Path) -> None:
    """Remove the socket folder that belongs to `folder`, with what is in it."""
    sockets = tls_front.socket_folder(folder)
    for file in sockets.iterdir():
        file.unlink()
    sockets.rmdir()


def project_root() -> Path:
    """Return the folder that `local` lies in."""
    return Path(__file__).resolve().parents[1]


def _wait_for_port(port: int, *, log: Path) -> None:
    deadline = time.monotonic() + FRONT_READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-1000:] if log.exists() else ""
                raise TimeoutError(f"nothing listens on 127.0.0.1:{port}: {tail}") from error
        time.sleep(0.05)
