"""Deployments through the service's API, with real scripts and a stand-in for EC2 and S3."""

import base64
import contextlib
import io
import json
import logging
import os
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local.codedeploy.dispatcher import Dispatcher
from local.codedeploy.instance import matches, parse_environment, parse_mounts
from local.codedeploy.resources import CodeDeployResources
from local.codedeploy.service import CodeDeployService, ServiceError
from local.codedeploy.store import Item, Store
from local.paths import LocalPaths

USER_DATA = """#!/bin/bash
mount -t efs -o tls,iam fs-0123456789abcdef0:/ /mnt/releases
cat > /etc/updraft/environment <<'END'
UPDRAFT_SSM_PREFIX=/updraft/test
UPDRAFT_RELEASES_DIRECTORY=/mnt/releases
END
"""


class FakeEc2:
    meta = SimpleNamespace(region_name="eu-west-1")

    def __init__(self, tags: dict[str, str]) -> None:
        tag_list = [{"Key": key, "Value": value} for key, value in tags.items()]
        instance = {"InstanceId": "i-1", "State": {"Name": "running"}, "Tags": tag_list}
        self._page = {"Reservations": [{"OwnerId": "000000000000", "Instances": [instance]}]}

    def get_paginator(self, _name: str) -> SimpleNamespace:
        return SimpleNamespace(paginate=lambda: [self._page])

    def describe_instance_attribute(self, **_: str) -> dict[str, dict[str, str]]:
        return {"UserData": {"Value": base64.b64encode(USER_DATA.encode()).decode()}}


class FakeS3:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.exceptions = SimpleNamespace(ClientError=KeyError)

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, SimpleNamespace]:
        assert Bucket == "bundles"
        body = io.BytesIO(self.objects[Key])
        return {"Body": SimpleNamespace(iter_chunks=lambda size: iter(lambda: body.read(size), b""))}


class Cloud:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = LocalPaths(folder)
        self.s3 = FakeS3()
        self.mounted: list[str] = []
        self.store = Store(folder / "codedeploy" / "state.json")
        self.dispatcher = Dispatcher(
            store=self.store,
            paths=self.paths,
            ec2=FakeEc2({"role": "bastion"}),
            log_in=lambda _instance: SimpleNamespace(
                environment={"AWS_ACCESS_KEY_ID": "of-the-instance"},
                client={"s3": self.s3}.__getitem__,
                mounts=self.mounted.append,
            ),
            environment={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
            logger=logging.getLogger("codedeploy"),
        )
        self.service = CodeDeployService(store=self.store, dispatcher=self.dispatcher)

    def bundle(self, key: str, files: dict[str, str]) -> None:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        self.s3.objects[key] = content.getvalue()

    def set_up(self) -> None:
        self.service.call("CreateApplication", {"applicationName": "app"})
        self.service.call(
            "CreateDeploymentGroup",
            {
                "applicationName": "app",
                "deploymentGroupName": "group",
                "serviceRoleArn": "arn:aws:iam::000000000000:role/x",
                "ec2TagFilters": [{"Key": "role", "Value": "bastion", "Type": "KEY_AND_VALUE"}],
                "autoRollbackConfiguration": {"enabled": True, "events": ["DEPLOYMENT_FAILURE"]},
            },
        )

    def create(self, key: str, **more: object) -> str:
        location = {"bucket": "bundles", "key": key, "bundleType": "zip"}
        asked = {
            "applicationName": "app",
            "deploymentGroupName": "group",
            "revision": {"revisionType": "S3", "s3Location": location},
        }
        return str(self.service.call("CreateDeployment", asked | more)["deploymentId"])

    def wait(self, identifier: str) -> Item:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            info: Item = self.service.call("GetDeployment", {"deploymentId": identifier})["deploymentInfo"]
            if info["status"] in ("Succeeded", "Failed", "Stopped") and not self.dispatcher._threads:
                return info
            time.sleep(0.02)
        raise AssertionError(f"deployment is {info['status']}")

    def deploy(self, key: str, **more: object) -> Item:
        return self.wait(self.create(key, **more))

    def events(self, identifier: str) -> dict[str, Item]:
        found = self.service.call("GetDeploymentTarget", {"deploymentId": identifier, "targetId": "i-1"})
        events = found["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
        return {event["lifecycleEventName"]: event for event in events}


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    made = Cloud(tmp_path)
    made.set_up()
    return made


def appspec(hooks: dict[str, str], files: str = "") -> str:
    lines = [f"  {event}:\n    - location: {script}\n      timeout: 5" for event, script in hooks.items()]
    return "version: 0.0\nos: linux\n" + files + ("hooks:\n" + "\n".join(lines) + "\n" if lines else "")


def shell(text: str) -> str:
    return "#!/bin/sh\nset -e\n" + text + "\n"


def test_scripts_run_in_order_with_the_agents_environment(cloud: Cloud) -> None:
    script = shell(
        'echo "$LIFECYCLE_EVENT $APPLICATION_NAME $UPDRAFT_SSM_PREFIX $AWS_ACCESS_KEY_ID" >> "$UPDRAFT_RELEASES_DIRECTORY/log"'
    )
    hooks = {
        "ValidateService": "a.sh",
        "BeforeInstall": "a.sh",
        "AfterInstall": "a.sh",
        "ApplicationStart": "a.sh",
    }
    cloud.bundle("1.zip", {"appspec.yml": appspec(hooks), "a.sh": script})
    info = cloud.deploy("1.zip")
    assert info["status"] == "Succeeded", info
    log = (cloud.folder / "efs" / "fs-0123456789abcdef0" / "log").read_text().splitlines()
    order = ("BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService")
    assert log == [f"{event} app /updraft/test of-the-instance" for event in order]
    assert cloud.mounted == ["fs-0123456789abcdef0"]
    assert info["deploymentOverview"]["Succeeded"] == 1
    assert all(event["status"] == "Succeeded" for event in cloud.events(info["deploymentId"]).values())


def test_failed_hook_fails_the_deployment_with_its_output_and_rolls_back(cloud: Cloud) -> None:
    good = {"appspec.yml": appspec({"AfterInstall": "a.sh"}), "a.sh": shell("exit 0")}
    cloud.bundle("good.zip", good)
    cloud.bundle("bad.zip", good | {"a.sh": shell("echo the reason >&2\nexit 3")})
    assert cloud.deploy("good.zip")["status"] == "Succeeded"
    info = cloud.deploy("bad.zip")
    assert info["status"] == "Failed"
    assert info["errorInformation"]["code"] == "HEALTH_CONSTRAINTS"
    events = cloud.events(info["deploymentId"])
    assert events["AfterInstall"]["diagnostics"]["errorCode"] == "ScriptFailed"
    assert "[stderr]the reason" in events["AfterInstall"]["diagnostics"]["logTail"]
    assert events["ValidateService"]["status"] == "Skipped"
    rollback = cloud.wait(info["rollbackInfo"]["rollbackDeploymentId"])
    assert (rollback["creator"], rollback["status"]) == ("codeDeployRollback", "Succeeded")
    assert rollback["revision"]["s3Location"]["key"] == "good.zip"


def test_first_failed_deployment_has_nothing_to_roll_back_to(cloud: Cloud) -> None:
    cloud.bundle("bad.zip", {"appspec.yml": appspec({"BeforeInstall": "missing.sh"})})
    info = cloud.deploy("bad.zip")
    assert info["status"] == "Failed"
    assert "rollbackInfo" not in info
    assert cloud.events(info["deploymentId"])["BeforeInstall"]["diagnostics"]["errorCode"] == "ScriptMissing"


def test_script_that_takes_too_long_is_killed(cloud: Cloud) -> None:
    spec = appspec({"BeforeInstall": "a.sh"}).replace("timeout: 5", "timeout: 1")
    cloud.bundle("1.zip", {"appspec.yml": spec, "a.sh": shell("sleep 60")})
    info = cloud.deploy("1.zip")
    assert cloud.events(info["deploymentId"])["BeforeInstall"]["diagnostics"]["errorCode"] == "ScriptTimedOut"


def test_stopped_deployment_ends_at_once_and_kills_its_script(cloud: Cloud) -> None:
    pid_file = cloud.folder / "pid"
    cloud.bundle(
        "1.zip",
        {"appspec.yml": appspec({"BeforeInstall": "a.sh"}), "a.sh": shell(f"echo $$ > {pid_file}\nsleep 60")},
    )
    identifier = cloud.create("1.zip")
    deadline = time.monotonic() + 10
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(ServiceError, match="already has an active Deployment"):
        cloud.create("1.zip")
    cloud.service.call("StopDeployment", {"deploymentId": identifier})
    assert cloud.wait(identifier)["status"] == "Stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_killed_agent_leaves_its_deployment_going_on_until_somebody_stops_it(cloud: Cloud) -> None:
    pid_file = cloud.folder / "pid"
    script = shell(f"echo $$ > {pid_file}\nsleep 60")
    cloud.bundle("1.zip", {"appspec.yml": appspec({"AfterInstall": "a.sh"}), "a.sh": script})
    dies_in = {"AfterInstall"}
    cloud.dispatcher._dies_in = dies_in.__contains__
    identifier = cloud.create("1.zip")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ValueError, OSError):
            os.kill(int(pid_file.read_text()), 0)
            time.sleep(0.02)
            continue
        if pid_file.exists():
            break
        time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    info = cloud.service.call("GetDeployment", {"deploymentId": identifier})["deploymentInfo"]
    assert info["status"] == "InProgress"
    dies_in.clear()
    cloud.service.call("StopDeployment", {"deploymentId": identifier})
    assert cloud.wait(identifier)["status"] == "Stopped"


def test_damaged_archive_fails_the_download_with_a_reason(cloud: Cloud) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("appspec.yml", appspec({}) + "# " + "".join(map(str, range(1000))))
    content = bytearray(packed.getvalue())
    content[60] ^= 0xFF
    cloud.s3.objects["1.zip"] = bytes(content)
    assert cloud.deploy("1.zip")["status"] == "Failed"
    identifier = next(iter(cloud.store.targets))
    [target] = cloud.store.targets[identifier].values()
    [failed] = [event for event in target["lifecycleEvents"] if event["status"] == "Failed"]
    assert failed["lifecycleEventName"] == "DownloadBundle"
    assert failed["diagnostics"]["message"]


def test_what_a_script_said_is_kept_when_it_succeeds_too(cloud: Cloud) -> None:
    cloud.bundle("1.zip", {"appspec.yml": appspec({"AfterInstall": "a.sh"}), "a.sh": shell("echo done well")})
    identifier = cloud.deploy("1.zip")["deploymentId"]
    found = cloud.service.call("GetDeploymentTarget", {"deploymentId": identifier, "targetId": "i-1"})
    events = found["deploymentTarget"]["instanceTarget"]["lifecycleEvents"]
    [event] = [event for event in events if event["lifecycleEventName"] == "AfterInstall"]
    assert event["diagnostics"]["errorCode"] == "Success"
    assert "[stdout]done well" in event["diagnostics"]["logTail"]


def test_installed_files_are_cleaned_up_by_the_next_deployment(cloud: Cloud) -> None:
    files = "files:\n  - source: /content\n    destination: /opt/app\n"
    cloud.bundle(
        "1.zip", {"appspec.yml": appspec({}, files), "content/old.txt": "1", "content/both.txt": "1"}
    )
    cloud.bundle("2.zip", {"appspec.yml": appspec({}, files), "content/both.txt": "2"})
    folder = cloud.folder / "instances" / "i-1" / "root" / "opt" / "app"
    assert cloud.deploy("1.zip")["status"] == "Succeeded"
    assert (folder / "old.txt").exists()
    assert cloud.deploy("2.zip")["status"] == "Succeeded"
    assert sorted(path.name for path in folder.iterdir()) == ["both.txt"]
    assert (folder / "both.txt").read_text() == "2"


@pytest.mark.parametrize(
    ("behavior", "status", "content"),
    [("DISALLOW", "Failed", "mine"), ("OVERWRITE", "Succeeded", "1"), ("RETAIN", "Succeeded", "mine")],
)
def test_existing_file_is_treated_as_the_deployment_asks(
    cloud: Cloud, behavior: str, status: str, content: str
) -> None:
    files = "files:\n  - source: a.txt\n    destination: /opt/app\n"
    cloud.bundle("1.zip", {"appspec.yml": appspec({}, files), "a.txt": "1"})
    target = cloud.folder / "instances" / "i-1" / "root" / "opt" / "app" / "a.txt"
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    assert cloud.deploy("1.zip", fileExistsBehavior=behavior)["status"] == status
    assert target.read_text() == content


def test_application_stop_comes_from_the_revision_that_last_succeeded(cloud: Cloud) -> None:
    log = cloud.folder / "stops"
    spec = appspec({"ApplicationStop": "stop.sh"})
    cloud.bundle("1.zip", {"appspec.yml": spec, "stop.sh": shell(f"echo one >> {log}\nexit 1")})
    cloud.bundle("2.zip", {"appspec.yml": spec, "stop.sh": shell(f"echo two >> {log}")})
    assert cloud.deploy("1.zip")["status"] == "Succeeded"
    assert cloud.deploy("2.zip", ignoreApplicationStopFailures=True)["status"] == "Succeeded"
    assert log.read_text() == "one\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"readme": ""}, "did not find an AppSpec file"),
        ({"appspec.yml": "version: 1.0\nos: linux\n"}, "version"),
        ({"appspec.yml": "version: 0.0\nos: windows\n"}, "os"),
        ({"appspec.yml": "version: 0.0\nos: linux\nhook: {}\n"}, "unknown sections"),
        ({"appspec.yml": appspec({}), "../outside": ""}, "outside of itself"),
    ],
)
def test_wrong_bundle_fails_at_download(cloud: Cloud, files: dict[str, str], reason: str) -> None:
    cloud.bundle("1.zip", files)
    info = cloud.deploy("1.zip")
    assert info["status"] == "Failed"
    assert reason in cloud.events(info["deploymentId"])["DownloadBundle"]["diagnostics"]["message"]


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        ("ListDeploymentTargets", {}),
        ("GetDeploymentTarget", {"targetId": "i-1"}),
        ("BatchGetDeploymentTargets", {"targetIds": ["i-1"]}),
    ],
)
def test_deployment_that_has_not_started_has_no_targets_to_look_at(
    cloud: Cloud, operation: str, more: Item
) -> None:
    cloud.bundle("1.zip", {"appspec.yml": appspec({})})
    asked = {"deploymentId": cloud.deploy("1.zip")["deploymentId"]}
    cloud.service.call(operation, asked | more)
    cloud.store.deployments[asked["deploymentId"]]["status"] = "Created"
    with pytest.raises(ServiceError) as caught:
        cloud.service.call(operation, asked | more)
    assert caught.value.code == "DeploymentNotStartedException"


def test_no_matching_instance_fails_the_deployment(cloud: Cloud) -> None:
    cloud.store.groups["app"]["group"]["ec2TagFilters"][0]["Value"] = "other"
    cloud.bundle("1.zip", {"appspec.yml": appspec({})})
    assert cloud.deploy("1.zip")["errorInformation"]["code"] == "NO_INSTANCES"


def test_interrupted_deployment_is_failed_after_a_restart_and_state_survives(cloud: Cloud) -> None:
    cloud.bundle("1.zip", {"appspec.yml": appspec({})})
    done = cloud.deploy("1.zip")["deploymentId"]
    content = json.loads((cloud.folder / "codedeploy" / "state.json").read_text())
    content["deployments"][done]["status"] = "InProgress"
    (cloud.folder / "codedeploy" / "state.json").write_text(json.dumps(content))
    again = Cloud(cloud.folder)
    again.dispatcher.fail_interrupted()
    info = again.service.call("GetDeployment", {"deploymentId": done})["deploymentInfo"]
    assert (info["status"], info["errorInformation"]["code"]) == ("Failed", "AGENT_ISSUE")


@pytest.mark.parametrize(
    ("operation", "parameters", "code"),
    [
        ("CreateApplication", {}, "ApplicationNameRequiredException"),
        ("CreateApplication", {"applicationName": "app"}, "ApplicationAlreadyExistsException"),
        (
            "CreateApplication",
            {"applicationName": "b", "computePlatform": "ECS"},
            "InvalidComputePlatformException",
        ),
        ("CreateApplication", {"applicationName": "b", "nonsense": 1}, "InvalidInputException"),
        ("CreateApplication", {"applicationName": 1}, "InvalidInputException"),
        ("GetApplication", {"applicationName": "none"}, "ApplicationDoesNotExistException"),
        ("GetDeployment", {"deploymentId": "nonsense"}, "InvalidDeploymentIdException"),
        ("GetDeployment", {"deploymentId": "d-ABCDEFGH1"}, "DeploymentDoesNotExistException"),
        ("CreateDeployment", {"applicationName": "app"}, "DeploymentGroupNameRequiredException"),
        (
            "CreateDeployment",
            {"applicationName": "app", "deploymentGroupName": "group"},
            "RevisionRequiredException",
        ),
        ("PutLifecycleEventHookExecutionStatus", {}, "UnknownOperationException"),
    ],
)
def test_wrong_call_is_refused(cloud: Cloud, operation: str, parameters: Item, code: str) -> None:
    with pytest.raises(ServiceError) as caught:
        cloud.service.call(operation, parameters)
    assert caught.value.code == code


def test_cloudformation_makes_updates_and_deletes_both_types(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    resources = CodeDeployResources(cloud.service)
    application, _ = resources.create_application("App", {"ComputePlatform": "Server"}, "stack")
    props = {
        "ApplicationName": application,
        "ServiceRoleArn": "arn:aws:iam::000000000000:role/x",
        "Ec2TagSet": {
            "Ec2TagSetList": [{"Ec2TagGroup": [{"Key": "role", "Type": "KEY_AND_VALUE", "Value": "bastion"}]}]
        },
        "AutoRollbackConfiguration": {"Enabled": True, "Events": ["DEPLOYMENT_FAILURE"]},
    }
    group, _ = resources.create_group("Group", props, "stack")
    changed = props | {"DeploymentConfigName": "CodeDeployDefault.AllAtOnce"}
    assert resources.update_group(group, props, changed, "stack") == (group, {})
    asked = {"applicationName": application, "deploymentGroupName": group}
    info = cloud.service.call("GetDeploymentGroup", asked)["deploymentGroupInfo"]
    assert info["deploymentConfigName"] == "CodeDeployDefault.AllAtOnce"
    with pytest.raises(ServiceError, match="AlarmConfiguration"):
        resources.create_group("Other", props | {"AlarmConfiguration": {}}, "stack")
    resources.delete_group(group, changed)
    resources.delete_application(application, {})
    assert cloud.service.call("ListApplications", {}) == {"applications": []}


def test_user_data_tells_environment_and_mounts() -> None:
    assert parse_environment(USER_DATA)["UPDRAFT_RELEASES_DIRECTORY"] == "/mnt/releases"
    no_clients: dict[str, Any] = {}
    assert parse_mounts(USER_DATA, no_clients.__getitem__) == {"/mnt/releases": "fs-0123456789abcdef0"}
    assert parse_environment("echo A=1") == {}


def test_tags_match_one_filter_of_every_group() -> None:
    tags = {"a": "1", "b": "2"}
    both = [[{"Key": "a", "Value": "1"}], [{"Key": "b", "Type": "KEY_ONLY"}]]
    assert matches(tags, both)
    assert not matches({"a": "1"}, both)
    assert not matches(tags, [])
