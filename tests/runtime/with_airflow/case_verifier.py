"""The verifier's API: who may ask, what is refused, and when a release counts as served."""

from __future__ import annotations

import http.client
import json
import tempfile
import threading
import time
import unittest
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

from runtime import metadata
from runtime.import_test import ImportTester, Report
from runtime.metadata import Serving
from runtime.verifier import Verifier, handler, missing, sign
from tests.runtime.with_airflow.releases import stage

SECRET = "s3cret"
VERSION = "0123456789abcdef"


def serving(version: str | None = VERSION, errors: dict[str, str] | None = None, **dags: str) -> Serving:
    return Serving(version=version, dag_versions=dict(dags), import_errors=errors or {})


class MissingTest(unittest.TestCase):
    def test_served_means_every_dag_and_no_other(self) -> None:
        assert missing(serving(a=VERSION, b=VERSION), VERSION, ["a", "b"]) == []
        for now, text in (
            (serving(version="old", a=VERSION), "still serves old"),
            (serving(version=None), "still serves None"),
            (serving(a=VERSION, b="old"), "not parsed yet: b"),
            (serving(a=VERSION), "not parsed yet: b"),
            (serving(a=VERSION, b=VERSION, c="old"), "not in the release: c"),
            (serving(a=VERSION, b=VERSION, errors={"x.py": "boom"}), "x.py: boom"),
        ):
            assert text in "; ".join(missing(now, VERSION, ["a", "b"]))


class VerifierTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.releases = Path(folder.name)
        self.tester = mock.Mock(spec=ImportTester)
        self.tester.test.return_value = Report(dag_ids=["a"])
        self.verifier = Verifier(self.releases, self.tester, visible_seconds=0.0)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self.verifier, SECRET))
        self.server.daemon_threads = True
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)

    def candidate(self) -> str:
        version = stage(self.releases, {"a.py": "x = 1\n"})
        (self.releases / version).rename(self.releases / f".candidate-{version}")
        return version

    def ask(
        self, path: str, content: Any, *, secret: str = SECRET, raw: bytes | None = None
    ) -> tuple[int, dict[str, Any]]:
        body = json.dumps(content).encode() if raw is None else raw
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)
        connection.request("POST", path, body, {"X-Updraft-Signature": sign(secret, path, body)})
        answer = connection.getresponse()
        found = json.load(answer)
        connection.close()
        return answer.status, found

    def test_whole_candidate_is_tested_once(self) -> None:
        version = self.candidate()
        assert self.ask("/verify", {"version": version}) == (200, {"dag_ids": ["a"]})
        (self.releases / f".candidate-{version}").rename(self.releases / version)
        assert self.ask("/verify", {"version": version}) == (200, {"dag_ids": ["a"]})
        assert self.tester.test.call_count == 1
        assert self.tester.test.call_args.args[0].name == version

    def test_every_mistake_is_answered_and_the_next_try_tests_again(self) -> None:
        version = self.candidate()
        self.tester.test.return_value = Report(errors=["a.py: x", "b.py: y"])
        for _ in range(2):
            assert self.ask("/verify", {"version": version}) == (409, {"errors": ["a.py: x", "b.py: y"]})
        assert self.tester.test.call_count == 2

    def test_late_candidate_is_waited_for(self) -> None:
        version = self.candidate()
        (self.releases / f".candidate-{version}").rename(self.releases / "late")
        self.verifier._visible_seconds = 10.0
        timer = threading.Timer(
            0.3, (self.releases / "late").rename, [self.releases / f".candidate-{version}"]
        )
        timer.start()
        assert self.ask("/verify", {"version": version})[0] == 200
        timer.join()

    def test_damaged_or_missing_candidate_is_refused(self) -> None:
        version = self.candidate()
        (self.releases / f".candidate-{version}" / "a.py").write_text("x = 2\n")
        for asked, text in ((version, "differs from its hash"), (VERSION, "is not whole")):
            status, found = self.ask("/verify", {"version": asked})
            assert status == 409
            assert text in found["errors"][0]
        self.tester.test.assert_not_called()

    def test_stranger_is_refused_before_anything_is_read(self) -> None:
        assert self.ask("/verify", {"version": VERSION}, secret="other")[0] == 401
        assert self.ask("/verify", None, secret="", raw=b"not json")[0] == 401
        self.tester.test.assert_not_called()

    def test_wrong_requests_are_told_and_harm_nothing(self) -> None:
        wrong: list[Any] = [{}, {"version": "../etc"}, {"version": 3}, [], None]
        for content in wrong:
            assert self.ask("/verify", content)[0] == 400, content
        for seconds in (-1, 1e9, "x", None):
            assert self.ask("/served", {"version": VERSION, "timeout_seconds": seconds})[0] == 400
        assert self.ask("/nowhere", {})[0] == 404
        assert self.ask("/verify", None, raw=b"x" * 20_000)[0] == 413
        assert self.ask("/verify", None, raw=b"\xff")[0] == 400

    def test_served_waits_for_the_dag_processor(self) -> None:
        version = self.candidate()
        answers = [serving(version="old"), serving(version=version), serving(version=version, a=version)]
        with self.database(answers):
            asked = {"version": version, "timeout_seconds": 20}
            assert self.ask("/served", asked) == (200, {"dag_ids": ["a"], "versions_in_use": ["older"]})

    def test_not_served_in_time_says_what_is_missing(self) -> None:
        version = self.candidate()
        with self.database([serving(version=version)] * 1000):
            started = time.monotonic()
            status, found = self.ask("/served", {"version": version, "timeout_seconds": 0})
            assert status == 409
            assert found["errors"] == ["not served after 0 s", "not parsed yet: a"]
            assert time.monotonic() - started < 10

    @contextmanager
    def database(self, answers: list[Serving]) -> Any:
        @contextmanager
        def connect() -> Any:
            yield None

        with (
            mock.patch.object(metadata, "connect", connect),
            mock.patch.object(metadata, "serving", side_effect=answers),
            mock.patch.object(metadata, "versions_in_use", return_value=["older"]),
        ):
            yield


if __name__ == "__main__":
    unittest.main()
