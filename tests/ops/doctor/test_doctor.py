"""The doctor finds nothing in a healthy environment, and each mistake by the check that is meant for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from ops.doctor import report
from ops.doctor.account import Account
from ops.doctor.check import Outcome, run_checks
from stacks.config import parse_environment
from tests.ops.doctor import world

World = world.World
NOW = world.NOW


def examine(given: Any) -> dict[str, Outcome]:
    return {outcome.check.id: outcome for outcome in run_checks(report.CHECKS, Account(given, NOW))}


def on_sqs(given: Any) -> None:
    given.config = parse_environment("dev", world.SQS)
    for container in given.containers.values():
        container["environment"][0]["value"] = "sqs"


def test_a_healthy_environment_has_no_findings() -> None:
    outcomes = examine(World())
    assert [outcome.document() for outcome in outcomes.values() if outcome.state == "found"] == []
    assert {name for name, outcome in outcomes.items() if outcome.state == "skipped"} == {
        "visibility-timeout"
    }


def test_every_check_has_an_id_of_its_own() -> None:
    ids = [check.id for check in report.CHECKS]
    assert len(set(ids)) == len(ids)


def _differing_secret(given: Any) -> None:
    given.containers["scheduler"]["secrets"][0]["valueFrom"] = "arn:aws:secretsmanager:::secret:other:::"


def _secret_in_the_clear(given: Any) -> None:
    given.containers["worker-default"]["secrets"] = []
    given.containers["worker-default"]["environment"].append(
        {"name": "AIRFLOW__API_AUTH__JWT_SECRET", "value": "x"}
    )


def _set(**values: Any) -> Callable[[Any], None]:
    def change(given: Any) -> None:
        for name, value in values.items():
            setattr(given, name, value)

    return change


def _update(place: str, **values: Any) -> Callable[[Any], None]:
    def change(given: Any) -> None:
        part = getattr(given, place)
        (part[0] if isinstance(part, list) else part).update(values)

    return change


def _metrics(**values: list[float]) -> Callable[[Any], None]:
    return lambda given: given.metrics.update(values)


def _other_api(given: Any) -> None:
    given.containers["worker-default"]["environment"][1]["value"] = "http://localhost:8080/execution/"


def _sqs_with(**values: Any) -> Callable[[Any], None]:
    def change(given: Any) -> None:
        on_sqs(given)
        _set(**values)(given)

    return change


def _flower_on_sqs(given: Any) -> None:
    on_sqs(given)
    given.services.append(world.service("flower", "sg-airflow"))
    given.tasks.append(world.task("flower", "10.0.1.9"))
    given.containers["flower"] = given.containers["scheduler"]


def _failed_rollout(given: Any) -> None:
    given.services[0]["deployments"][0]["rolloutState"] = "FAILED"


def _migration(**values: Any) -> dict[str, Any]:
    return {
        "taskArn": "arn:task/m",
        "group": "family:updraft-dev-migration",
        "lastStatus": "STOPPED",
        "createdAt": world.LONG_AGO,
        "taskDefinitionArn": "arn:x/updraft-dev-migration:1",
        "containers": [{"exitCode": 1}],
    } | values


def _stuck_migration(given: Any) -> None:
    given.tasks.append(_migration(lastStatus="PENDING"))


LONGEST = {"dag_id": "etl", "task_id": "load", "duration": 90_000.0}
RINGING = {"AlarmName": "updraft-dev-scaling-Errors", "StateReason": "3 datapoints"}
STOPPED_NAT = {"InstanceId": "i-nat", "SourceDestCheck": False, "State": {"Name": "stopped"}}
LAST_LINE = {"filename": "etl.py", "stack_trace": "Traceback\nModuleNotFoundError: pandas"}
MISTAKES: list[tuple[str, Callable[[Any], None], str]] = [
    (
        "permissions",
        _set(calls=[world.call("denied")]),
        r"updraft-dev-airflow-TaskRole did s3:GetObject on arn:aws:s3:::data/x \(2 times\)",
    ),
    ("permissions", _set(calls=[world.call("unknown", "x:Do")]), "no permission is known for: x:Do"),
    ("secrets-differ", _differing_secret, "differs between services"),
    ("secrets-differ", _secret_in_the_clear, "in the clear"),
    ("secrets-stale", _set(secret_created=NOW - timedelta(hours=1)), "was changed at 2026-03-02 11:00:00"),
    ("services", _update("services", desiredCount=0), "wants 0 tasks"),
    ("services", _update("tasks", healthStatus="UNHEALTHY"), "0 healthy tasks of 1, 1 running"),
    ("deployments", _failed_rollout, "failed: no reason given"),
    ("execution-api", _set(registered=[]), "leads nowhere: registered nothing"),
    ("execution-api", _set(rules=[]), "no rule lets Airflow's tasks"),
    ("execution-api", lambda given: given.containers.pop("worker-default"), "was never deployed"),
    ("execution-api", _other_api, "which is no name of this environment"),
    ("visibility-timeout", _sqs_with(longest=LONGEST), "but etl.load takes 90000 s"),
    ("visibility-timeout", _sqs_with(visibility_timeout=30), "has a visibility timeout of 30 s"),
    ("flower", _flower_on_sqs, "Flower runs beside the SQS broker"),
    ("migration", _stuck_migration, "has been running for"),
    ("migration", _set(stopped=[_migration()]), r"ended with \[1\]"),
    (
        "log-groups",
        _set(log_groups={"/updraft/dev/webserver", "/updraft/dev/worker-default"}),
        "log group /updraft/dev/scheduler does not exist",
    ),
    ("stacks", _update("stacks", StackStatus="UPDATE_ROLLBACK_COMPLETE"), "UPDATE_ROLLBACK_COMPLETE"),
    ("stacks", _update("stacks", StackStatus="UPDATE_IN_PROGRESS"), "has been UPDATE_IN_PROGRESS since"),
    ("database", _update("database", DBInstanceStatus="stopped"), "the database is stopped"),
    ("database", _update("database", DBInstanceStatus="storage-full"), "storage is full"),
    ("database-tls", _set(force_ssl="0"), "rds.force_ssl is 0"),
    ("database-tls", _update("database", IAMDatabaseAuthenticationEnabled=False), "IAM log-in is off"),
    ("database-storage", _metrics(FreeStorageSpace=[2.0**30]), r"1\.0 GiB of 20 GiB free"),
    (
        "certificates",
        _update("database", CertificateDetails={"ValidTill": NOW + timedelta(days=3)}),
        "expires on 2026-03-05",
    ),
    ("pointer", _set(bundles=set()), "was never pushed"),
    ("served", _set(dags=[{"dag_id": "etl", "bundle_version": "old"}]), "is served from version old"),
    ("served", _set(import_errors=[LAST_LINE]), "etl.py can't be imported: ModuleNotFoundError: pandas"),
    ("deployment", _update("deployment", status="Failed"), "failed: no reason given"),
    ("deployment", _update("deployment", status="InProgress"), "agent is lost"),
    ("bastion", _set(bastion_state="stopped"), "the bastion i-1 is stopped"),
    ("bastion", _set(bastion_ping="ConnectionLost"), "it is ConnectionLost"),
    ("quotas", _set(quotas={"ml.g5.xlarge for training job usage": 0.0}), "is 0: SageMaker refuses"),
    (
        "fargate",
        _set(vcpus={"L-3032A538": 6.0, "L-36FBB829": 0.0}),
        r"is 6; the services take 1\.75, .* and the workers at their most 5$",
    ),
    ("clocks", _set(date="Mon, 02 Mar 2026 12:10:00 GMT"), r"clock is -600 s off AWS's"),
    ("clocks", _set(heartbeat=NOW + timedelta(minutes=5)), "300 s in the future"),
    ("disks", _update("efs", LifeCycleState="error"), "is error: no bundle can be read"),
    ("disks", _update("efs", SizeInBytes={"Value": 60 * 2**30}), "releases take 60 GiB"),
    ("routes", _set(routes=[{"State": "blackhole", "InstanceId": "i-nat"}]), "leads to i-nat"),
    ("routes", _set(nat=STOPPED_NAT), "the NAT instance i-nat is stopped"),
    ("workers", _metrics(LiveWorkers=[2.0] * 30), "has kept 2 idle workers"),
    ("workers", _metrics(LiveWorkers=[]), "has published nothing for 30 minutes"),
    ("workers", _metrics(QueuedTasks=[9.0] * 30, WantedWorkers=[2.0] * 30), "tasks waiting and no worker"),
    ("alarms", _set(alarms=[RINGING]), "updraft-dev-scaling-Errors is ringing"),
]


@pytest.mark.parametrize(("check_id", "mistake", "told"), MISTAKES)
def test_a_mistake_is_found(check_id: str, mistake: Callable[[Any], None], told: str) -> None:
    given = World()
    mistake(given)
    outcome = examine(given)[check_id]
    assert outcome.state == "found"
    assert len(outcome.findings) == 1
    assert re.search(told, outcome.findings[0].problem), outcome.findings[0].problem
    assert outcome.findings[0].remedy


def test_what_sleeps_is_no_finding() -> None:
    given = World(sleep="asleep", tasks=[], registered=[], bastion_state="stopped")
    given.database["DBInstanceStatus"] = "stopped"
    for service in given.services:
        service["desiredCount"] = 0
    outcomes = examine(given)
    assert [name for name, outcome in outcomes.items() if outcome.state == "found"] == []
    assert outcomes["services"].reason == "the environment is asleep"


def test_vcpus_are_counted_by_what_they_run_on() -> None:
    spot = {"capacity": "FARGATE_SPOT", "control_plane": {"cpu": 1024, "memory_mib": 4096}}
    fleet = {"cpu": 2048, "memory_mib": 8192, "concurrency": 8, "min": 0, "max": 10, "spot_percent": 70}
    values = world.REDIS | {"topology": "merged", "services": spot, "workers": {"default": fleet}}
    given = World(config=parse_environment("dev", values), vcpus={"L-3032A538": 6.0, "L-36FBB829": 16.0})
    assert examine(given)["fargate"].state == "ok"
    given.vcpus = {"L-3032A538": 5.0, "L-36FBB829": 15.0}
    on_demand, on_spot = examine(given)["fargate"].findings
    assert "--desired-value 6" in on_demand.remedy
    assert "--desired-value 16" in on_spot.remedy


def test_every_check_has_a_mistake_that_it_finds() -> None:
    assert {check.id for check in report.CHECKS} == {check_id for check_id, _, _ in MISTAKES}


def test_a_service_that_does_not_answer_leaves_the_other_checks_alone() -> None:
    given = World(broken={"rds"}, force_ssl="0", pointer="gone")
    outcomes = examine(given)
    assert outcomes["database-tls"].state == "blind"
    assert "rds" in outcomes["database-tls"].reason
    assert outcomes["pointer"].state == "found"
    assert "? database-tls" in report.readable(list(outcomes.values()))
