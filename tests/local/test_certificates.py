"""The local authority: made once, private, and good for a verified handshake."""

import ssl
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from local.certificates import ensure_ca, ensure_server_certificate
from local.efs import efs_root


def handshake(ca: Path, certificate: Path, key: Path, name: str) -> str | None:
    """The version that both agree on; raises what the client has against the server."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(ca))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    done = [False, False]
    while not all(done):
        for index, side in enumerate(sides):
            try:
                side.do_handshake()
                done[index] = True
            except ssl.SSLWantReadError:
                pass
    return sides[0].version()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_handshake_is_verified(tmp_path: Path, name: str) -> None:
    paths = SimpleNamespace(certificates=tmp_path / "certificates")
    server = ensure_server_certificate(paths)
    assert handshake(ensure_ca(paths), server.certificate, server.key, name) == "TLSv1.3"


def test_other_name_and_other_authority_are_refused(tmp_path: Path) -> None:
    one, two = (SimpleNamespace(certificates=tmp_path / name) for name in ("one", "two"))
    server = ensure_server_certificate(one)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ensure_ca(one), server.certificate, server.key, "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ensure_ca(two), server.certificate, server.key, "localhost")


def test_files_are_private_and_made_once_by_many_at_a_time(tmp_path: Path) -> None:
    paths = SimpleNamespace(certificates=tmp_path / "certificates")
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(ensure_ca(paths).read_bytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1
    ensure_server_certificate(paths)
    modes = {file.stat().st_mode & 0o777 for file in paths.certificates.iterdir() if file.name != ".lock"}
    assert modes == {0o600}


def test_state_directory_that_is_made_with_it_is_private(tmp_path: Path) -> None:
    ensure_ca(SimpleNamespace(certificates=tmp_path / "local" / "certificates"))
    assert (tmp_path / "local").stat().st_mode & 0o777 == 0o700


def test_file_system_has_one_folder_and_odd_ids_are_refused(tmp_path: Path) -> None:
    paths = SimpleNamespace(state_directory=tmp_path)
    assert efs_root(paths, "fs-0123456789abcdef0").is_dir()
    with pytest.raises(ValueError, match="file system id"):
        efs_root(paths, "../outside")
