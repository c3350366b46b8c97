"""A real Redis with AUTH tokens, on its Unix socket."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from local import tls_front
from local.broker.server import RedisServer, check_token

ONE, TWO = "a" * 20, "b" * 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    sockets = tls_front.socket_folder(tmp_path)
    made = RedisServer(folder=tmp_path / "redis", sockets=sockets)
    made.configure([ONE])
    process = subprocess.Popen(made.command(), stdout=subprocess.DEVNULL)
    try:
        made.wait_until_ready()
        yield made
    finally:
        process.terminate()
        process.wait(timeout=15)
        made.prepare_start()
        sockets.rmdir()


def opens(server: RedisServer, token: str | None) -> bool:
    never = Retry(NoBackoff(), 0)
    with redis.Redis(unix_socket_path=str(server.socket), password=token, retry=never) as client:
        try:
            return bool(client.ping())
        except (redis.exceptions.AuthenticationError, redis.exceptions.ResponseError):
            return False


def test_only_the_token_opens_it(server: RedisServer) -> None:
    assert [opens(server, token) for token in (ONE, TWO, None)] == [True, False, False]


def test_rotated_then_set_then_deleted_token(server: RedisServer) -> None:
    server.set_tokens([ONE, TWO])
    assert [opens(server, token) for token in (ONE, TWO, None)] == [True, True, False]
    server.set_tokens([TWO])
    assert [opens(server, token) for token in (ONE, TWO, None)] == [False, True, False]
    server.set_tokens([])
    assert opens(server, None)


def test_configuration_with_tokens_is_for_its_owner_alone(server: RedisServer) -> None:
    assert (server.folder / "redis.conf").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("token", ["short", "a" * 129, "a b" * 8, "a@" * 10, "{{resolve:secretsmanager:x}}"])
def test_token_that_elasticache_refuses_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="AuthToken"):
        check_token(token)
