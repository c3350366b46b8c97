"""The database's TLS front: `python -m local.database.front --port … --server-socket …`.

It speaks the start of PostgreSQL's wire protocol as RDS does
(https://www.postgresql.org/docs/18/protocol-flow.html): SSLRequest and direct TLS are served, plain text is
refused, cancel requests pass, and a role that holds `rds_iam` logs in with a presigned RDS token.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from local import tls_front
from local.database.server import ADMINISTRATOR

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102
PROTOCOL_MAJOR = 3
MAXIMUM_STARTUP_BYTES = 10_000
MAXIMUM_PASSWORD_BYTES = 65_536
TLS_HANDSHAKE_RECORD = 0x16

AUTHENTICATION_OK = b"R" + struct.pack("!II", 8, 0)
AUTHENTICATION_CLEARTEXT = b"R" + struct.pack("!II", 8, 3)


class Refused(Exception):
    """The connection ends with this PostgreSQL error."""

    def __init__(self, message: str, *, code: str = "28000") -> None:
        super().__init__(message)
        self.code = code

    def packet(self) -> bytes:
        """Return the ErrorResponse message."""
        fields = {"S": "FATAL", "V": "FATAL", "C": self.code, "M": str(self)}
        body = b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items()) + b"\0"
        return b"E" + struct.pack("!I", len(body) + 4) + body


@dataclass(frozen=True)
class Startup:
    """A startup or cancel packet as it came, with the parameters that it names."""

    packet: bytes
    code: int
    parameters: dict[str, str]

    @property
    def user(self) -> str:
        """The role that wants to log in."""
        return self.parameters.get("user", "")


def main() -> None:
    """Serve until SIGTERM."""
    options = tls_front.parse_options(program="local.database.front", with_verifier=True)
    context = tls_front.server_context(options, protocols=["postgresql"])
    verifier_socket = options.verifier_socket
    if verifier_socket is None:
        raise SystemExit("--verifier-socket is missing")

    async def handle(connection: socket.socket) -> None:
        if not await _wants_tls(connection, options.server_socket):
            return
        client = await tls_front.start_tls(connection, context)
        try:
            await _serve_client(client, options.server_socket, verifier_socket)
        except Refused as refused:
            client[1].write(refused.packet())
            await client[1].drain()
        finally:
            await tls_front.close(client[1])

    asyncio.run(tls_front.serve(options, handle))


async def _wants_tls(connection: socket.socket, server_socket: Path) -> bool:
    """Answer what comes before TLS; False when the connection is already dealt with."""
    loop = asyncio.get_running_loop()
    while True:
        start = await _peek(connection, 8)
        if start[:1] == bytes([TLS_HANDSHAKE_RECORD]):
            return True
        if len(start) < 8:
            return False
        length, code = struct.unpack("!II", start)
        if length == 8 and code == SSL_REQUEST:
            await _receive(connection, 8)
            await loop.sock_sendall(connection, b"S")
            return True
        if length == 8 and code == GSS_REQUEST:
            await _receive(connection, 8)
            await loop.sock_sendall(connection, b"N")
            continue
        if code == CANCEL_REQUEST and length <= MAXIMUM_STARTUP_BYTES:
            # libpq before 17 sends these in plain text even when the session is encrypted.
            await _forward_cancel(await _receive(connection, length), server_socket)
            return False
        refused = Refused("no pg_hba.conf entry for this host: rds.force_ssl is 1, connect with TLS")
        await loop.sock_sendall(connection, refused.packet())
        return False


async def _peek(connection: socket.socket, count: int) -> bytes:
    """Return the first bytes without taking them; fewer when the client sends no more.

    A direct TLS handshake must reach the TLS layer whole, so nothing is taken before it is known.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + tls_front.HANDSHAKE_TIMEOUT_SECONDS
    seen = b""
    while loop.time() < deadline:
        try:
            seen = connection.recv(count, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(connection, deadline - loop.time())
            continue
        if not seen or len(seen) >= count or seen[0] == TLS_HANDSHAKE_RECORD:
            return seen
        # Part of a packet is readable already: wait for the rest without spinning.
        await asyncio.sleep(0.01)
    return seen


async def _readable(connection: socket.socket, timeout_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def set_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, set_ready)
    try:
        await asyncio.wait_for(ready, timeout=max(timeout_seconds, 0))
    finally:
        loop.remove_reader(connection)


async def _receive(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        part = await loop.sock_recv(connection, count - len(data))
        if not part:
            raise ConnectionResetError("the client closed inside a packet")
        data += part
    return data


async def _forward_cancel(packet: bytes, server_socket: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(server_socket))
    writer.write(packet)
    await writer.drain()
    await reader.read()
    await tls_front.close(writer)


async def _serve_client(client: tls_front.Streams, server_socket: Path, verifier_socket: Path) -> None:
    startup = await read_startup(client[0])
    if startup.code == CANCEL_REQUEST:
        await _forward_cancel(startup.packet, server_socket)
        return
    if startup.user == ADMINISTRATOR:
        raise Refused(f'password authentication failed for user "{ADMINISTRATOR}"', code="28P01")
    try:
        server = await asyncio.open_unix_connection(str(server_socket))
    except OSError as error:
        raise Refused("the database system is starting up or stopped", code="57P03") from error
    try:
        server[1].write(startup.packet)
        await server[1].drain()
        await _authenticate(client, server, startup.user, verifier_socket)
        await tls_front.join(client, server)
    finally:
        await tls_front.close(server[1])


async def read_startup(reader: asyncio.StreamReader) -> Startup:
    """Read the first packet inside TLS. Raises Refused for anything but a startup or cancel packet."""
    length = struct.unpack("!I", await reader.readexactly(4))[0]
    if not 8 <= length <= MAXIMUM_STARTUP_BYTES:
        raise Refused("invalid length of startup packet", code="08P01")
    body = await reader.readexactly(length - 4)
    code = struct.unpack("!I", body[:4])[0]
    packet = struct.pack("!I", length) + body
    if code == CANCEL_REQUEST:
        return Startup(packet=packet, code=code, parameters={})
    if code >> 16 != PROTOCOL_MAJOR:
        raise Refused(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}", code="0A000")
    words = body[4:].rstrip(b"\0").split(b"\0")
    texts = [word.decode("utf-8", "replace") for word in words]
    parameters = dict(zip(texts[::2], texts[1::2], strict=False))
    if not parameters.get("user"):
        raise Refused("no PostgreSQL user name specified in startup packet")
    return Startup(packet=packet, code=code, parameters=parameters)


async def _authenticate(
    client: tls_front.Streams, server: tls_front.Streams, user: str, verifier_socket: Path
) -> None:
    """Pass password authentication through; hold a trusted (`rds_iam`) log-in until its token is checked.

    The server's `pg_hba.conf` trusts members of `rds_iam` on the Unix socket, which only this front can
    reach, so an immediate AuthenticationOk says that the role logs in by IAM.
    """
    while True:
        kind, body = await _read_message(server[0])
        message = kind + struct.pack("!I", len(body) + 4) + body
        if kind == b"v":
            client[1].write(message)
            continue
        if message != AUTHENTICATION_OK:
            client[1].write(message)
            await client[1].drain()
            return
        client[1].write(AUTHENTICATION_CLEARTEXT)
        await client[1].drain()
        token = await _read_password(client[0])
        if not await _token_is_valid(user, token, verifier_socket):
            raise Refused(f'PAM authentication failed for user "{user}"')
        client[1].write(AUTHENTICATION_OK)
        await client[1].drain()
        return


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    kind = await reader.readexactly(1)
    length = struct.unpack("!I", await reader.readexactly(4))[0]
    return kind, await reader.readexactly(max(length - 4, 0))


async def _read_password(reader: asyncio.StreamReader) -> str:
    kind = await reader.readexactly(1)
    length = struct.unpack("!I", await reader.readexactly(4))[0]
    if kind != b"p" or not 4 <= length <= MAXIMUM_PASSWORD_BYTES:
        raise Refused("expected password response", code="08P01")
    return (await reader.readexactly(length - 4)).rstrip(b"\0").decode("utf-8", "replace")


async def _token_is_valid(user: str, token: str, verifier_socket: Path) -> bool:
    reader, writer = await asyncio.open_unix_connection(str(verifier_socket))
    try:
        writer.write(json.dumps({"user": user, "token": token}).encode() + b"\n")
        await writer.drain()
        answer: object = json.loads(await reader.readline())
    finally:
        await tls_front.close(writer)
    return answer == {"valid": True}


if __name__ == "__main__":
    main()
