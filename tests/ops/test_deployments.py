"""What the command line makes of a deployment: its events, its failures, an agent that is lost."""

import datetime
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ops import commands_delivery, delivery, deployments, sleeping
from ops import target as targets
from ops.console import OperatorError

VERSION = "0123456789abcdef"
OTHER = "fedcba9876543210"


def at(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(1_000_000 + seconds, tz=datetime.UTC)


def event(name: str, status: str, **diagnostics: str) -> dict[str, Any]:
    found: dict[str, Any] = {"lifecycleEventName": name, "status": status}
    if status in ("Succeeded", "Failed"):
        found |= {"startTime": at(0), "endTime": at(1.5), "diagnostics": diagnostics}
    return found


class BusyError(Exception):
    pass


def refusal(code: str, operation: str = "X") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


UNREACHABLE = EndpointConnectionError(endpoint_url="https://codedeploy")


class CodeDeploy:
    """Answers with a script of states; the last one stays."""

    def __init__(self, *states: tuple[str, list[dict[str, Any]]]) -> None:
        self.states = list(states)
        self.stopped: list[dict[str, Any]] = []
        self.created: list[dict[str, Any]] = []
        self.busy = 0
        self.not_started: Iterator[str] = iter(())
        # For each question its failure, None for an answer.
        self.failures: Iterator[Exception | None] = iter(())
        self.ends_before_it_is_stopped = False
        self.rollback: dict[str, Any] = {}
        self.exceptions = SimpleNamespace(DeploymentLimitExceededException=BusyError)

    def create_deployment(self, **asked: Any) -> dict[str, str]:
        if self.busy:
            self.busy -= 1
            raise BusyError("d-OTHER is active")
        self.created.append(asked)
        return {"deploymentId": "d-1"}

    def get_deployment(self, *, deploymentId: str) -> dict[str, Any]:
        if deploymentId == "d-back":
            revision = {"s3Location": {"key": f"{OTHER}.zip"}}
            return {"deploymentInfo": {"status": "Succeeded", "revision": revision}}
        if (failure := next(self.failures, None)) is not None:
            raise failure
        if (state := next(self.not_started, None)) is not None:
            return {"deploymentInfo": {"status": state}}
        return {"deploymentInfo": {"status": self.states[0][0], "rollbackInfo": self.rollback}}

    def list_deployment_targets(self, **_: str) -> dict[str, list[str]]:
        return {"targetIds": ["i-1"]}

    def get_deployment_target(self, **_: str) -> dict[str, Any]:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"deploymentTarget": {"instanceTarget": {"lifecycleEvents": state[1]}}}

    def stop_deployment(self, **asked: Any) -> None:
        if self.ends_before_it_is_stopped:
            self.states = [("Succeeded", [])]
            raise refusal("DeploymentAlreadyCompletedException", "StopDeployment")
        self.stopped.append(asked)


class Ssm:
    def __init__(self) -> None:
        self.signs: Iterator[str] = iter(())

    def get_parameter(self, *, Name: str) -> dict[str, Any]:
        assert Name == "/updraft/test/bundle/progress"
        return {"Parameter": {"Value": next(self.signs, "none")}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deployments, "time", clock)
    return clock


def target_of(codedeploy: CodeDeploy, ssm: Ssm | None = None) -> Any:
    clients = {"codedeploy": codedeploy, "ssm": ssm or Ssm()}
    return SimpleNamespace(
        name="test",
        client=clients.__getitem__,
        config=SimpleNamespace(ssm_prefix="/updraft/test", region="eu-west-1"),
        output=lambda stack, key: f"{stack}-{key}",
    )


@pytest.mark.usefixtures("clock")
def test_success_tells_seconds_and_dags_of_each_event() -> None:
    tail = f"[stdout]release {VERSION} is served: one, two; pruned 0 of 1"
    codedeploy = CodeDeploy(
        ("InProgress", [event("Install", "InProgress")]),
        ("Succeeded", [event("Install", "Succeeded"), event("ValidateService", "Succeeded", logTail=tail)]),
    )
    found = deployments.run(target_of(codedeploy), VERSION, description="push by me")
    assert found.dag_ids == ["one", "two"]
    assert found.event_seconds == {"Install": 1.5, "ValidateService": 1.5}
    assert codedeploy.created[0]["revision"]["s3Location"]["key"] == f"{VERSION}.zip"


@pytest.mark.usefixtures("clock")
def test_failure_says_what_the_hook_said_and_where_codedeploy_went_back_to() -> None:
    tail = (
        "LifecycleEvent - AfterInstall\n[stdout]staged\n[stderr]verify.py: one.py: SyntaxError\n[stderr]two"
    )
    codedeploy = CodeDeploy(("Failed", [event("AfterInstall", "Failed", message="failed", logTail=tail)]))
    codedeploy.rollback = {"rollbackDeploymentId": "d-back"}
    with pytest.raises(OperatorError) as caught:
        deployments.run(target_of(codedeploy), VERSION, description="push by me")
    assert "AfterInstall: verify.py: one.py: SyntaxError\ntwo" in str(caught.value)
    assert f"rollback d-back to {OTHER}: succeeded" in str(caught.value)


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("code", ["DeploymentNotStartedException", "DeploymentTargetDoesNotExistException"])
def test_deployment_is_watched_from_before_its_start(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    codedeploy = CodeDeploy(("InProgress", []), ("Succeeded", [event("Install", "Succeeded")]))
    codedeploy.not_started = iter(["Created", "Queued"])
    asked, without_targets = codedeploy.list_deployment_targets, iter([True, True])

    def list_targets(**arguments: str) -> dict[str, list[str]]:
        # In the meantime CodeDeploy has told that it goes on.
        assert next(codedeploy.not_started, None) is None, "asked for targets before the start"
        if next(without_targets, False):
            raise refusal(code, "ListDeploymentTargets")
        return asked(**arguments)

    codedeploy.list_deployment_targets = list_targets  # type: ignore[method-assign]
    found = deployments.run(target_of(codedeploy), VERSION, description="push by me")
    assert found.event_seconds == {"Install": 1.5}
    assert "no answer" not in capsys.readouterr().err


def test_short_outage_is_outlasted_and_is_no_silence_of_the_agent(clock: Clock) -> None:
    installing = ("InProgress", [event("Install", "InProgress")])
    codedeploy = CodeDeploy(installing, installing, ("Succeeded", [event("Install", "Succeeded")]))
    questions = int(deployments.UNANSWERED_SECONDS / deployments.POLL_SECONDS)
    codedeploy.failures = itertools.chain([None], itertools.repeat(UNREACHABLE, questions))
    deployments.run(target_of(codedeploy), VERSION, description="push by me")
    assert clock.now > 59
    assert codedeploy.stopped == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [(UNREACHABLE, "Could not connect"), (refusal("ExpiredTokenException"), "aws sso login")],
)
def test_long_outage_says_that_the_deployment_goes_on_and_how_to_look(
    clock: Clock, failure: Exception, told: str
) -> None:
    codedeploy = CodeDeploy(("InProgress", []))
    codedeploy.failures = itertools.repeat(failure)
    with pytest.raises(OperatorError, match="deployment d-1 goes on") as caught:
        deployments.run(target_of(codedeploy), VERSION, description="push by me")
    assert told in str(caught.value)
    assert "./updraft releases --environment test" in str(caught.value)
    assert 60 < clock.now < 70
    assert codedeploy.stopped == []


@pytest.mark.usefixtures("clock")
def test_deployment_that_ends_while_it_is_stopped_ends_as_it_ended(
    capsys: pytest.CaptureFixture[str],
) -> None:
    codedeploy = CodeDeploy(("InProgress", [event("AfterInstall", "InProgress")]))
    codedeploy.ends_before_it_is_stopped = True
    assert deployments.run(target_of(codedeploy), VERSION, description="push by me").identifier == "d-1"
    assert "no answer" not in capsys.readouterr().err


def test_lost_agent_is_noticed_in_about_a_minute_and_stopped(clock: Clock) -> None:
    codedeploy = CodeDeploy(("InProgress", [event("AfterInstall", "InProgress")]))
    with pytest.raises(OperatorError, match=r"no sign of life for 6\d s in AfterInstall") as caught:
        deployments.run(target_of(codedeploy), VERSION, description="push by me")
    assert clock.now < 70
    assert codedeploy.stopped == [{"deploymentId": "d-1", "autoRollbackEnabled": True}]
    assert "rollback waits for the same agent" in str(caught.value)
    assert "--deployment-group-name delivery-DeploymentGroupName" in str(caught.value)
    assert "aws deploy stop-deployment --region eu-west-1 --no-auto-rollback-enabled" in str(caught.value)


def test_slow_hook_that_gives_signs_of_life_is_waited_for(clock: Clock) -> None:
    codedeploy = CodeDeploy(("InProgress", [event("AfterInstall", "InProgress")]))
    ssm = Ssm()
    ssm.signs = (f"d-1 AfterInstall {number}" for number in range(20))
    with pytest.raises(OperatorError, match="no sign of life"):
        deployments.run(target_of(codedeploy, ssm), VERSION, description="push by me")
    assert clock.now > 200


def test_signs_of_another_deployment_do_not_count(clock: Clock) -> None:
    codedeploy = CodeDeploy(("InProgress", [event("AfterInstall", "InProgress")]))
    ssm = Ssm()
    ssm.signs = (f"d-2 AfterInstall {number}" for number in range(1000))
    with pytest.raises(OperatorError, match="no sign of life"):
        deployments.run(target_of(codedeploy, ssm), VERSION, description="push by me")
    assert clock.now < 70


def test_deployment_of_somebody_else_is_waited_for(clock: Clock) -> None:
    codedeploy = CodeDeploy(("Succeeded", []))
    codedeploy.busy = 3
    assert deployments.run(target_of(codedeploy), VERSION, description="push by me").identifier == "d-1"
    assert clock.now == 3 * deployments.POLL_SECONDS
    codedeploy.busy = 10_000
    with pytest.raises(
        OperatorError, match=r"another deployment is still going on.*aws deploy stop-deployment"
    ):
        deployments.run(target_of(codedeploy), VERSION, description="push by me")


class Pointer:
    def __init__(self, value: str) -> None:
        self.value = value

    def get_parameter(self, **_: str) -> dict[str, Any]:
        return {"Parameter": {"Value": self.value}}


class Deployed:
    """Deployments that succeeded, oldest first."""

    def __init__(self, *versions: str) -> None:
        self.infos = {
            f"d-{number}": {
                "deploymentId": f"d-{number}",
                "creator": "codeDeployRollback" if version.startswith("auto:") else "user",
                "description": "push by me",
                "completeTime": at(number),
                "revision": {"s3Location": {"key": f"{version.removeprefix('auto:')}.zip"}},
            }
            for number, version in enumerate(versions)
        }

    def get_paginator(self, _name: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [{"deployments": list(self.infos)}])

    def batch_get_deployments(self, *, deploymentIds: list[str]) -> dict[str, Any]:
        return {"deploymentsInfo": [self.infos[it] for it in deploymentIds]}


@pytest.mark.parametrize(
    ("deployed", "live", "before"),
    [
        (["a", "b"], "b", "a"),
        (["a", "b", "c", "b"], "b", "c"),
        (["x", "a", "auto:a"], "a", "x"),
        (["a", "b", "a", "b", "a"], "a", "b"),
    ],
)
def test_rollback_takes_the_version_that_was_deployed_well_before(
    monkeypatch: pytest.MonkeyPatch, deployed: list[str], live: str, before: str
) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(delivery, "_require_bundle", lambda _target, version: chosen.append(version))
    monkeypatch.setattr(delivery, "_deploy", lambda *_: {})
    clients = {"ssm": Pointer(live), "codedeploy": Deployed(*deployed)}
    target: Any = SimpleNamespace(client=clients.__getitem__, output=lambda *_: "x")
    delivery.rollback(target, None)
    assert chosen == [before]


def test_rollback_without_anything_earlier_is_refused() -> None:
    clients = {"ssm": Pointer("a"), "codedeploy": Deployed("a", "auto:a")}
    target: Any = SimpleNamespace(client=clients.__getitem__, output=lambda *_: "x")
    with pytest.raises(OperatorError, match="no other version than a was live"):
        delivery.rollback(target, None)
    with pytest.raises(OperatorError, match="a is live already"):
        delivery.rollback(target, "a")


def test_releases_say_who_and_how() -> None:
    target: Any = SimpleNamespace(client=lambda _: Deployed("a", "auto:b"), output=lambda *_: "x")
    newest, oldest = deployments.succeeded(target)
    assert (newest["version"], newest["kind"], newest["who"]) == ("b", "automatic rollback", "CodeDeploy")
    assert (oldest["version"], oldest["kind"], oldest["who"]) == ("a", "push", "me")
    assert oldest["deployment_id"] == "d-0"


def test_watching_pushes_every_change_once_and_outlives_a_refused_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Any
) -> None:
    (tmp_path / "one.py").write_text("x = 1")
    pushed: list[str] = []

    def push(_target: Any, dags: Path) -> dict[str, Any]:
        pushed.append((dags / "one.py").read_text())
        if len(pushed) == 1:
            (tmp_path / "one.py").write_text("x = 22")
            raise OperatorError("one.py: SyntaxError")
        if len(pushed) == 2:
            (tmp_path / "one.py").write_text("x = 4444")
            raise UNREACHABLE
        if len(pushed) == 3:
            (tmp_path / "one.py").write_text("x = 333")
            return {"version": VERSION, "seconds": {"all": 1.0}}
        raise KeyboardInterrupt

    monkeypatch.setattr(delivery, "push", push)
    monkeypatch.setattr(delivery, "WATCH_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        delivery.watch(target({}), tmp_path)
    assert pushed == ["x = 1", "x = 22", "x = 4444", "x = 333"]


class Bucket:
    def __init__(self, **objects: bytes) -> None:
        self.objects = objects

    def head_object(self, *, Key: str, **_: str) -> None:
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadObject")

    def get_object(self, *, Key: str, **_: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self.objects[Key])}

    def upload_fileobj(self, body: Any, _bucket: str, key: str) -> None:
        self.objects[key] = body.read()


@pytest.mark.usefixtures("clock")
def test_promotion_deploys_the_very_bytes_of_the_other_environment() -> None:
    source_bucket, bucket = Bucket(**{f"{VERSION}.zip": b"bundle"}), Bucket()
    source: Any = SimpleNamespace(
        name="dev",
        client={"s3": source_bucket, "ssm": Pointer(VERSION)}.__getitem__,
        output=lambda *_: "x",
    )
    codedeploy = CodeDeploy(("Succeeded", []))
    target = target_of(codedeploy)
    clients = {"s3": bucket, "codedeploy": codedeploy, "ssm": Ssm()}
    target.client = clients.__getitem__
    target.is_local = True
    result = delivery.promote(target, source, None)
    assert bucket.objects == {f"{VERSION}.zip": b"bundle"}
    assert result["version"] == VERSION
    assert codedeploy.created[0]["description"].startswith("promotion from dev by ")
    with pytest.raises(OperatorError, match=f"'dev' has no bundle {OTHER}"):
        delivery.promote(target, source, OTHER)
    with pytest.raises(OperatorError, match="16 hex digits"):
        delivery.promote(target, source, "latest")


def test_sleeping_environment_is_woken_before_anything_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[Any, ...]] = []

    def remember(name: str) -> Callable[..., dict[str, Any]]:
        def act(target: targets.Target, what: Any, *_: Any) -> dict[str, Any]:
            done.append((name, target.name, what))
            return {"version": VERSION, "dag_ids": []}

        return act

    monkeypatch.setattr(sleeping, "ensure_awake", lambda target: done.append(("wake", target.name)))
    for name in ("push", "rollback", "promote"):
        monkeypatch.setattr(delivery, name, remember(name))
    commands_delivery.push("dev", Path("dags"))
    commands_delivery.rollback(None, "dev")
    commands_delivery.promote("prod", "dev", from_profile="reader")
    origin = targets.target_of("prod", profile="reader")
    assert done == [
        ("wake", "dev"), ("push", "dev", Path("dags")),
        ("wake", "dev"), ("rollback", "dev", None),
        ("wake", "dev"), ("promote", "dev", origin),
    ]  # fmt: skip


def test_profile_for_the_laptop_is_refused() -> None:
    with pytest.raises(OperatorError, match="--from-profile: 'local' is on this laptop"):
        commands_delivery.promote("local", "dev", from_profile="reader")
