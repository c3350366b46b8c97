"""The verifier: a container beside the dag-processor that says whether a release may go live, and when it is live.

HTTP on port 8790, for the deployment hooks on the bastion. `GET /health`; `POST /verify` {version}; `POST /served`
{version, timeout_seconds}. Posts are signed with the secret that both sides hold. Every answer is JSON: 200 with what
was found, 409 with `errors` when the release is refused, 4xx with `errors` for a wrong request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg2

from runtime import metadata
from runtime.import_test import ImportTester, Report
from runtime.metadata import Serving
from runtime.release_check import VERSION, ReleaseError, check_release, read_manifest

log = logging.getLogger(__name__)

PORT = 8790
CANDIDATE_PREFIX = ".candidate-"
# NFS may show a new folder late: attributes are cached for up to 60 s.
VISIBLE_SECONDS = 100.0
POLL_SECONDS = 0.1
MOST_REQUEST_BYTES = 10_000
LONGEST_WAIT_SECONDS = 600.0
SHOWN = 10


class RefusedError(Exception):
    """Why a release may not go live, or is not served: one text for each mistake."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class Verifier:
    """Tests candidates in the shared directory `releases` and watches what the dag-processor serves."""

    def __init__(
        self, releases: Path, tester: ImportTester, *, visible_seconds: float = VISIBLE_SECONDS
    ) -> None:
        self._releases = releases
        self._tester = tester
        self._visible_seconds = visible_seconds
        self._one_at_a_time = threading.Lock()
        # A release never changes and neither does this image: what passed once passes again.
        self._passed: dict[str, list[str]] = {}

    def verify(self, version: str) -> dict[str, Any]:
        """Import-test a candidate, or a release that was accepted before; returns its `dag_ids`.

        Raises RefusedError with every mistake.
        """
        with self._one_at_a_time:
            if version not in self._passed:
                report = self._test(version)
                if report.errors:
                    raise RefusedError(report.errors)
                self._passed[version] = report.dag_ids
            return {"dag_ids": self._passed[version]}

    def _test(self, version: str) -> Report:
        with tempfile.TemporaryDirectory(prefix="updraft-candidate-") as scratch:
            copy = Path(scratch) / version
            self._copy(version, copy)
            report = self._tester.test(copy)
            # Where the copy lay says nothing to the author of a DAG.
            return Report(report.dag_ids, [error.replace(f"{copy}/", "") for error in report.errors])

    def _copy(self, version: str, copy: Path) -> None:
        """Copy the release once it is there whole; raises RefusedError when it doesn't become so in time."""
        deadline = time.monotonic() + self._visible_seconds
        while True:
            try:
                shutil.copytree(self._source(version), copy, symlinks=True)
                check_release(copy, read_manifest(copy))
                return
            except (OSError, ReleaseError) as error:
                shutil.rmtree(copy, ignore_errors=True)
                if time.monotonic() > deadline:
                    text = f"release {version} is not whole in {self._releases}: {error}"
                    raise RefusedError([text]) from error
            time.sleep(POLL_SECONDS)

    def _source(self, version: str) -> Path:
        candidate = self._releases / f"{CANDIDATE_PREFIX}{version}"
        return candidate if candidate.is_dir() else self._releases / version

    def served(self, version: str, timeout_seconds: float) -> dict[str, Any]:
        """Wait until the dag-processor serves every DAG of a verified release; returns `dag_ids`, `versions_in_use`.

        The dag-processor stamps a parse with the version that it read the file from, so a DAG that bears the version
        was parsed after the switch. Raises RefusedError with what is missing when the time is up.
        """
        dag_ids = self.verify(version)["dag_ids"]
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                with metadata.connect() as connection:
                    while waiting := missing(metadata.serving(connection), version, dag_ids):
                        if time.monotonic() > deadline:
                            raise RefusedError([f"not served after {timeout_seconds:.0f} s"] + waiting)
                        time.sleep(POLL_SECONDS)
                    return {"dag_ids": dag_ids, "versions_in_use": metadata.versions_in_use(connection)}
            except psycopg2.OperationalError as error:
                if time.monotonic() > deadline:
                    raise RefusedError([f"the metadata database does not answer: {error}"]) from error
                time.sleep(1)


def missing(now: Serving, version: str, dag_ids: list[str]) -> list[str]:
    """What keeps a version from being served; empty when it is."""
    if now.version != version:
        return [f"the dag-processor still serves {now.version}"]
    errors = [f"{file}: {text.strip()[-500:]}" for file, text in sorted(now.import_errors.items())]
    waiting = [it for it in dag_ids if now.dag_versions.get(it) != version]
    if waiting:
        errors.append(f"not parsed yet: {', '.join(waiting[:SHOWN])}")
    if surplus := sorted(now.dag_versions.keys() - set(dag_ids)):
        errors.append(f"still there, though not in the release: {', '.join(surplus[:SHOWN])}")
    return errors


def handler(verifier: Verifier, secret: str) -> type[BaseHTTPRequestHandler]:
    """The HTTP side: checks size, signature and values of a request before anything is done."""
    actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "/verify": lambda asked: verifier.verify(_version(asked)),
        "/served": lambda asked: verifier.served(_version(asked), _seconds(asked)),
    }

    class Handler(BaseHTTPRequestHandler):
        # A client that sends nothing must not hold a thread for ever.
        timeout = 30

        def do_GET(self) -> None:
            status = 200 if self.path == "/health" else 404
            self._answer(status, {"status": "ok"} if status == 200 else {"errors": ["no such path"]})

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not re.fullmatch(r"\d{1,6}", length) or int(length) > MOST_REQUEST_BYTES:
                self._answer(413, {"errors": [f"a request has a length of 0 to {MOST_REQUEST_BYTES} bytes"]})
                return
            body = self.rfile.read(int(length))
            if not hmac.compare_digest(
                sign(secret, self.path, body), self.headers.get("X-Updraft-Signature", "")
            ):
                self._answer(401, {"errors": ["the signature is missing or wrong"]})
                return
            if self.path not in actions:
                self._answer(404, {"errors": [f"{self.path}: there are {', '.join(actions)}"]})
                return
            try:
                self._answer(200, actions[self.path](json.loads(body)))
            except RefusedError as error:
                self._answer(409, {"errors": error.errors})
            except (ValueError, KeyError, TypeError) as error:
                self._answer(400, {"errors": [f"the request is wrong: {error!r}"]})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            if self.path != "/health":
                log.info(format, *arguments)

    return Handler


def sign(secret: str, path: str, body: bytes) -> str:
    """The signature of a request, in hex."""
    return hmac.new(secret.encode(), path.encode() + b"\n" + body, hashlib.sha256).hexdigest()


def _version(asked: dict[str, Any]) -> str:
    if not VERSION.fullmatch(asked["version"]):
        raise ValueError(f"version: {asked['version']!r} is not 16 hex digits")
    return str(asked["version"])


def _seconds(asked: dict[str, Any]) -> float:
    seconds = float(asked["timeout_seconds"])
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise ValueError(f"timeout_seconds: {seconds} is not within 0 to {LONGEST_WAIT_SECONDS}")
    return seconds


def main() -> None:
    """Serve until the container is stopped."""
    logging.basicConfig(level=logging.INFO)
    with ImportTester() as tester:
        tester.start()
        verifier = Verifier(Path(os.environ["UPDRAFT_RELEASES_DIRECTORY"]), tester)
        server = ThreadingHTTPServer(
            ("0.0.0.0", PORT), handler(verifier, os.environ["UPDRAFT_VERIFIER_SECRET"])
        )
        server.daemon_threads = True
        server.serve_forever()


if __name__ == "__main__":
    main()
