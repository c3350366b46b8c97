"""The services that run Airflow itself: one for each part, or all parts in one task where cost counts most."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct, IDependable

from stacks.config import EnvironmentConfig
from stacks.constructs import airflow_environment
from stacks.constructs.airflow_service import AirflowService
from stacks.constructs.airflow_task import AirflowImage, AirflowTask, Program
from stacks.network import NetworkStack
from stacks.sizes import FargateSize
from stacks.storage import StorageStack

HTTP_CHECK = ("python", "-m", "runtime.health", "http")
HEARTBEAT_CHECK = ("python", "-m", "runtime.health", "heartbeat")


class ControlPlane(Construct):
    """Webserver, scheduler, dag-processor with its verifier, and triggerer, separate or merged, and Flower where it is wanted."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        storage: StorageStack,
        cluster: ecs.ICluster,
        namespace: servicediscovery.INamespace,
        airflow: AirflowImage,
        control_role: iam.IRole,
        task_role: iam.IRole,
        after: IDependable,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._network = network
        self._cluster = cluster
        self._namespace = namespace
        self._airflow = airflow
        self._control_role = control_role
        self._after = after
        programs = _programs(config, storage)
        if config.topology == "merged":
            self._build_merged(programs, task_role)
        else:
            self._build_separate(programs, task_role)
        if config.services.flower is not None and storage.flower_login is not None:
            login = storage.flower_login
            flower = Program(
                "flower",
                ["airflow", "celery", "flower", "--port", "5555"],
                (*HTTP_CHECK, "http://localhost:5555/healthcheck"),
                secrets={
                    "UPDRAFT_FLOWER_USERNAME": ecs.Secret.from_secrets_manager(login, "username"),
                    "UPDRAFT_FLOWER_PASSWORD": ecs.Secret.from_secrets_manager(login, "password"),
                },
            )
            self._build(
                [flower], config.services.flower, control_role, [network.groups.airflow], dns_name="flower"
            )

    def _build_separate(self, programs: dict[str, Program], task_role: iam.IRole) -> None:
        services = self._config.services
        groups = self._network.groups
        role = self._control_role
        self._build(
            [programs["webserver"]],
            services.webserver,
            role,
            [groups.webserver],
            count=services.webserver.count,
            dns_name="webserver",
        )
        # Triggers are code of DAGs, so the triggerer may what tasks may.
        for name, size, its_role in (
            ("scheduler", services.scheduler, role),
            ("triggerer", services.triggerer, task_role),
        ):
            self._build([programs[name]], size, its_role, [groups.airflow], count=size.count)
        self._build(
            [programs["dag-processor"], programs["verifier"]],
            services.dag_processor,
            role,
            [groups.airflow],
            count=services.dag_processor.count,
            dns_name="dag-processor",
        )

    def _build_merged(self, programs: dict[str, Program], task_role: iam.IRole) -> None:
        size = self._config.services.control_plane
        assert size is not None, "checked with the environment"
        groups = self._network.groups
        self._build(
            list(programs.values()),
            size,
            task_role,
            [groups.webserver, groups.airflow],
            name="control-plane",
            dns_name="webserver",
        )

    def _build(
        self,
        programs: Sequence[Program],
        size: FargateSize,
        role: iam.IRole,
        security_groups: Sequence[ec2.ISecurityGroup],
        *,
        name: str | None = None,
        count: int = 1,
        dns_name: str | None = None,
    ) -> None:
        name = name or programs[0].name
        construct_id = name.title().replace("-", "")
        task = AirflowTask(
            self,
            f"{construct_id}Task",
            name=name,
            programs=programs,
            size=size,
            role=role,
            airflow=self._airflow,
            config=self._config,
        )
        service = AirflowService(
            self,
            construct_id,
            name=name,
            definition=task.definition,
            count=count,
            capacity=self._config.services.capacity,
            cluster=self._cluster,
            network=self._network,
            security_groups=security_groups,
            execute_command=self._config.execute_command,
            namespace=self._namespace,
            dns_name=dns_name,
        )
        service.node.add_dependency(self._after)


def services_on_the_schema(config: EnvironmentConfig) -> dict[str, int]:
    """The services that work on the metadata database by themselves, with their counts.

    Not the webserver, where it is a service of its own: running tasks send their heartbeats to it.
    """
    services = config.services
    if config.topology == "merged":
        return {"control-plane": 1}
    return {
        "scheduler": services.scheduler.count,
        "dag-processor": services.dag_processor.count,
        "triggerer": services.triggerer.count,
    }


def _programs(config: EnvironmentConfig, storage: StorageStack) -> dict[str, Program]:
    metrics = airflow_environment.metrics(config)
    programs = (
        Program(
            "webserver",
            ["airflow", "api-server", "--host", "0.0.0.0", "--port", "8080"],
            (*HTTP_CHECK, "http://localhost:8080/api/v2/monitor/health"),
        ),
        Program(
            "scheduler", ["airflow", "scheduler"], (*HTTP_CHECK, "http://localhost:8974/health"), metrics
        ),
        Program(
            "dag-processor",
            ["python", "-m", "runtime.dag_processor"],
            (*HEARTBEAT_CHECK, "DagProcessorJob"),
            metrics,
        ),
        Program(
            "verifier",
            ["python", "-m", "runtime.verifier"],
            (*HTTP_CHECK, "http://localhost:8790/health"),
            secrets={"UPDRAFT_VERIFIER_SECRET": ecs.Secret.from_secrets_manager(storage.verifier_secret)},
        ),
        Program("triggerer", ["airflow", "triggerer"], (*HEARTBEAT_CHECK, "TriggererJob"), metrics),
    )
    return {program.name: program for program in programs}
