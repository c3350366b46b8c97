"""The broker's TLS front: `python -m local.broker.front --port … --server-socket …`.

Plain text is refused as a failed handshake; authentication is Redis' own.
"""

from __future__ import annotations

import asyncio
import socket

from local import tls_front


def main() -> None:
    """Serve until SIGTERM."""
    options = tls_front.parse_options(program="local.broker.front", with_verifier=False)
    context = tls_front.server_context(options)

    async def handle(connection: socket.socket) -> None:
        client = await tls_front.start_tls(connection, context)
        try:
            server = await asyncio.open_unix_connection(str(options.server_socket))
        except OSError:
            await tls_front.close(client[1])
            return
        await tls_front.join(client, server)

    asyncio.run(tls_front.serve(options, handle))


if __name__ == "__main__":
    main()
