"""The hooks of a real bundle, run as the agent runs them, against stand-ins of SSM, Secrets Manager and the verifier."""

import ast
import hashlib
import hmac
import io
import json
import os
import resource
import runpy
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from runtime.release import build_release

POINTER = "/updraft/test/bundle/pointer"
SECRET = "s3cret"


class Platform:
    """What the hooks ask: parameters, the secret, and a verifier whose refusals are set by the test."""

    def __init__(self) -> None:
        self.parameters = {"/updraft/test/verifier/secret-arn": "arn:verifier"}
        self.refusals: dict[str, list[str]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.in_use: list[str] = []
        self.throttled = 0
        platform = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                target = self.headers.get("X-Amz-Target")
                if target:
                    self._answer(*platform.aws(target.rpartition(".")[2], json.loads(body)))
                else:
                    signature = self.headers["X-Updraft-Signature"]
                    self._answer(*platform.verifier(self.path, body, signature))

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def aws(self, operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if operation == "GetSecretValue":
            assert asked == {"SecretId": "arn:verifier"}
            return 200, {"SecretString": SECRET}
        if self.throttled:
            self.throttled -= 1
            return 400, {"__type": "ThrottlingException", "message": "Rate exceeded"}
        if operation == "PutParameter":
            assert asked["Overwrite"] is True
            self.parameters[asked["Name"]] = asked["Value"]
            return 200, {"Version": 2}
        if asked["Name"] not in self.parameters:
            return 400, {"__type": "ParameterNotFound", "message": ""}
        return 200, {
            "Parameter": {"Name": asked["Name"], "Value": self.parameters[asked["Name"]], "Version": 1}
        }

    def verifier(self, path: str, body: bytes, signature: str) -> tuple[int, dict[str, Any]]:
        expected = hmac.new(SECRET.encode(), path.encode() + b"\n" + body, hashlib.sha256).hexdigest()
        assert signature == expected
        self.asked.append((path, json.loads(body)))
        if path in self.refusals:
            return 409, {"errors": self.refusals[path]}
        return 200, {"dag_ids": ["one", "two"], "versions_in_use": self.in_use}


class Ran(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Bastion:
    """The machine that the agent runs on: an unpacked bundle and the shared file system."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        self.folder = folder
        self.platform = platform
        self.releases = folder / "releases"
        self.releases.mkdir()

    def unpack(self, text: str) -> str:
        """Unpack a bundle whose only DAG file has this text; returns its version."""
        dags = self.folder / "dags"
        dags.mkdir(exist_ok=True)
        (dags / "one.py").write_text(text)
        release = build_release(dags, [], self.folder / "built")
        self.revision = self.folder / f"deployment-{len(list(self.folder.glob('deployment-*')))}"
        with zipfile.ZipFile(release.archive) as archive:
            archive.extractall(self.revision)
        return release.version

    def run(self, hook: str, **environment: str) -> Ran:
        """Run a hook's script as a program of its own would, with its folder first on the path."""
        hooks = self.revision / "hooks"
        given = {
            "UPDRAFT_RELEASES_DIRECTORY": str(self.releases),
            "UPDRAFT_SSM_PREFIX": "/updraft/test",
            "UPDRAFT_VERIFIER_URL": self.platform.url,
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": self.platform.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        } | environment
        output, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(error):
            for name, value in given.items():
                patch.setenv(name, value)
            patch.syspath_prepend(hooks)
            patch.setattr(sys, "argv", [str(hooks / f"{hook}.py")])
            for module in [path.stem for path in hooks.glob("*.py")]:
                sys.modules.pop(module, None)
            try:
                runpy.run_path(str(hooks / f"{hook}.py"), run_name="__main__")
                code = 0
            except SystemExit as left:
                print(left.code, file=error)
                code = 1
            finally:
                for module in [path.stem for path in hooks.glob("*.py")]:
                    sys.modules.pop(module, None)
        return Ran(code, output.getvalue(), error.getvalue())

    def deploy(self, text: str) -> str:
        version = self.unpack(text)
        for hook in ("stage", "verify", "switch", "validate"):
            ran = self.run(hook)
            assert ran.returncode == 0, ran.stderr
        return version

    @property
    def pointer(self) -> str:
        return self.platform.parameters.get(POINTER, "none")

    def found(self) -> list[str]:
        return sorted(path.name for path in self.releases.iterdir())


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[Bastion]:
    platform = Platform()
    yield Bastion(tmp_path, platform)
    platform.close()


def test_release_is_staged_tested_switched_to_and_seen_served(bastion: Bastion) -> None:
    version = bastion.unpack("x = 1\n")
    assert "is staged with 1 files" in bastion.run("stage").stdout
    assert bastion.found() == [f".candidate-{version}"]
    assert "is accepted: one, two" in bastion.run("verify").stdout
    assert bastion.found() == [version]
    assert bastion.pointer == "none"
    bastion.run("switch")
    assert bastion.pointer == version
    assert f"release {version} is served: one, two; pruned 0 of 1" in bastion.run("validate").stdout
    manifest = json.loads((bastion.releases / version / ".release.json").read_text())
    assert manifest.keys() == {"version", "created_at", "files"}


def test_each_hook_may_run_twice(bastion: Bastion) -> None:
    version = bastion.deploy("x = 1\n")
    before = (bastion.releases / version / "one.py").stat().st_mtime_ns
    for hook in ("stage", "stage", "verify", "verify", "switch", "switch", "validate", "validate"):
        assert bastion.run(hook).returncode == 0
    assert (bastion.releases / version / "one.py").stat().st_mtime_ns == before
    assert bastion.pointer == version


def test_refused_release_is_gone_and_the_old_one_live(bastion: Bastion) -> None:
    live = bastion.deploy("x = 1\n")
    bastion.unpack("x = 2\n")
    bastion.run("stage")
    bastion.platform.refusals["/verify"] = ["one.py: SyntaxError", "two.py: cycle"]
    refused = bastion.run("verify")
    assert refused.returncode == 1
    assert "one.py: SyntaxError\ntwo.py: cycle" in refused.stderr
    assert bastion.found() == [live]
    assert bastion.pointer == live


def test_version_that_is_not_served_leads_back_to_the_one_before(bastion: Bastion) -> None:
    live = bastion.deploy("x = 1\n")
    version = bastion.unpack("x = 2\n")
    for hook in ("stage", "verify", "switch"):
        assert bastion.run(hook).returncode == 0
    assert bastion.pointer == version
    bastion.platform.refusals["/served"] = ["not parsed yet: one"]
    refused = bastion.run("validate")
    assert refused.returncode == 1
    assert "not parsed yet: one" in refused.stderr
    assert bastion.pointer == live


def test_untested_release_is_not_switched_to(bastion: Bastion) -> None:
    bastion.unpack("x = 1\n")
    bastion.run("stage")
    refused = bastion.run("switch")
    assert refused.returncode == 1
    assert bastion.pointer == "none"


def test_what_a_killed_agent_left_is_gone_after_the_next_deployment(bastion: Bastion) -> None:
    for name in (".candidate-0123456789abcdef", ".partial-1234", ".pruned-0123456789abcdef"):
        (bastion.releases / name).mkdir()
        (bastion.releases / name / "half.py").write_text("")
    version = bastion.deploy("x = 1\n")
    assert bastion.found() == [version]


@pytest.mark.parametrize("hook", ["stage", "switch", "validate"])
def test_damaged_release_goes_no_further(bastion: Bastion, hook: str) -> None:
    version = bastion.deploy("x = 1\n")
    bastion.platform.parameters[POINTER] = "0" * 16
    (bastion.releases / version / "one.py").write_text("damaged\n")
    ran = bastion.run(hook)
    assert ran.returncode == 1
    assert bastion.pointer == "0" * 16


def test_changed_file_in_the_bundle_is_not_staged(bastion: Bastion) -> None:
    bastion.unpack("x = 1\n")
    (bastion.revision / "release" / "one.py").write_text("x = 2\n")
    refused = bastion.run("stage")
    assert refused.returncode == 1
    assert "differs from its hash" in refused.stderr
    assert bastion.found() == []


def test_pruning_keeps_the_newest_the_live_and_those_in_use(bastion: Bastion) -> None:
    old = [f"{number:016x}" for number in range(25)]
    for age, name in enumerate(reversed(old)):
        (bastion.releases / name).mkdir()
        os.utime(bastion.releases / name, (1_000_000 - age, 1_000_000 - age))
    bastion.platform.in_use = [old[0]]
    version = bastion.deploy("x = 1\n")
    assert bastion.found() == sorted([old[0], *old[6:], version])


def test_pruning_that_takes_too_long_is_left_to_the_next_push(bastion: Bastion) -> None:
    for age in range(25):
        (bastion.releases / f"{age:016x}").mkdir()
        os.utime(bastion.releases / f"{age:016x}", (1_000_000 - age, 1_000_000 - age))
    bastion.deploy("x = 1\n")
    assert len(bastion.found()) == 20
    for age in range(5):
        (bastion.releases / f"{100 + age:016x}").mkdir()
        os.utime(bastion.releases / f"{100 + age:016x}", (1000, 1000))
    script = bastion.revision / "hooks" / "release_files.py"
    script.write_text(script.read_text().replace("PRUNE_SECONDS = 60", "PRUNE_SECONDS = 0"))
    assert "pruned 1 of 25 releases" in bastion.run("validate").stdout
    assert len(bastion.found()) == 24


def test_throttled_parameters_and_a_late_verifier_are_waited_for(bastion: Bastion) -> None:
    bastion.platform.throttled = 3
    version = bastion.deploy("x = 1\n")
    assert bastion.pointer == version


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ("stage", "UPDRAFT_RELEASES_DIRECTORY"),
        ("switch", "UPDRAFT_SSM_PREFIX"),
        ("verify", "UPDRAFT_VERIFIER_URL"),
    ],
)
def test_missing_environment_is_named(bastion: Bastion, hook: str, name: str) -> None:
    bastion.unpack("x = 1\n")
    bastion.run("stage")
    if hook == "switch":
        bastion.run("verify")
    refused = bastion.run(hook, **{name: ""})
    assert refused.returncode == 1
    assert f"{name} is not set" in refused.stderr


def test_file_system_that_is_not_mounted_is_named(bastion: Bastion) -> None:
    bastion.unpack("x = 1\n")
    missing = bastion.run("stage", UPDRAFT_RELEASES_DIRECTORY=str(bastion.folder / "nowhere"))
    assert missing.returncode == 1
    assert "is no folder; is the file system mounted?" in missing.stderr


def test_disk_that_takes_no_more_leaves_nothing_behind(bastion: Bastion) -> None:
    bastion.unpack("x = 1\n" * 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        refused = bastion.run("stage")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert bastion.found() == []


def test_hooks_are_written_for_the_bastions_python(bastion: Bastion) -> None:
    bastion.unpack("x = 1\n")
    scripts = sorted((bastion.revision / "hooks").glob("*.py"))
    assert {"release_check.py", "stage.py", "verify.py", "switch.py", "validate.py"} <= {
        it.name for it in scripts
    }
    for script in scripts:
        ast.parse(script.read_text(), feature_version=(3, 9))
