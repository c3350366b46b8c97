"""What the TLS fronts of the embedded database and broker share.

Neither embedded server is built with TLS, and both listen on a Unix socket alone. A front is a process of
its own that ends TLS with the local authority's certificate and joins the client to that socket.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 256 * 1024
HANDSHAKE_TIMEOUT_SECONDS = 30
CLOSE_TIMEOUT_SECONDS = 0.5

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True)
class FrontOptions:
    """The command line of a front."""

    port: int
    certificate: Path
    key: Path
    server_socket: Path
    verifier_socket: Path | None


def parse_options(*, program: str, with_verifier: bool) -> FrontOptions:
    """Read the command line; a missing or unknown argument ends the process with status 2."""
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--server-socket", type=Path, required=True)
    if with_verifier:
        parser.add_argument("--verifier-socket", type=Path, required=True)
    arguments = parser.parse_args()
    return FrontOptions(
        port=arguments.port,
        certificate=arguments.certificate,
        key=arguments.key,
        server_socket=arguments.server_socket,
        verifier_socket=arguments.verifier_socket if with_verifier else None,
    )


def socket_folder(state_folder: Path) -> Path:
    """Return a short 0700 folder for the Unix sockets of what lives in `state_folder`.

    A Unix socket's path has at most 104 bytes on macOS and 108 on Linux, fewer than many state
    directories need, so the sockets lie under `/tmp`, named by a hash of the state folder's path.
    Raises PermissionError when somebody else already has a folder of that name.
    """
    digest = hashlib.sha256(os.fsencode(state_folder.resolve())).hexdigest()[:16]
    folder = Path("/tmp") / f"updraft-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    foreign = status.st_uid != os.getuid() and os.getuid() != 0
    if foreign or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise PermissionError(
            f"{folder}: must be a folder of this user with mode 0700, "
            f"is owned by uid {status.st_uid} with mode {stat.S_IMODE(status.st_mode):04o}; remove it"
        )
    return folder


def server_context(options: FrontOptions, *, protocols: list[str] | None = None) -> ssl.SSLContext:
    """Return a TLS 1.2+ server context; `protocols` are offered in ALPN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.certificate, options.key)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


async def start_tls(connection: socket.socket, context: ssl.SSLContext) -> Streams:
    """Do the server's side of the handshake and return the decrypted streams."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(
        lambda: protocol, connection, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_SECONDS
    )
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def join(client: Streams, server: Streams) -> None:
    """Carry bytes both ways until either side closes, then close both."""
    ways = [
        asyncio.create_task(_carry(client[0], server[1])),
        asyncio.create_task(_carry(server[0], client[1])),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await close(client[1])
        await close(server[1])


async def close(writer: asyncio.StreamWriter) -> None:
    """Close the stream; a peer that has gone, or that never answers TLS' closing alert, is no error."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), timeout=CLOSE_TIMEOUT_SECONDS)
    except (OSError, ssl.SSLError, TimeoutError):
        writer.transport.abort()


async def serve(options: FrontOptions, handle: Callable[[socket.socket], Awaitable[None]]) -> None:
    """Accept on 127.0.0.1 until SIGTERM or SIGINT; each connection is handled in a task of its own."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", options.port), backlog=512)
    listener.setblocking(False)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    tasks: set[asyncio.Task[None]] = set()
    accepting = asyncio.create_task(_accept(listener, handle, tasks))
    await ended.wait()
    accepting.cancel()
    listener.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(accepting, *tasks, return_exceptions=True)


async def _accept(
    listener: socket.socket,
    handle: Callable[[socket.socket], Awaitable[None]],
    tasks: set[asyncio.Task[None]],
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = asyncio.create_task(_guarded(handle, connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _guarded(handle: Callable[[socket.socket], Awaitable[None]], connection: socket.socket) -> None:
    try:
        await handle(connection)
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError, TimeoutError):
        # The client or the server went away, or the client does not trust the certificate.
        pass
    finally:
        connection.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
