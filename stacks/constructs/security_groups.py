"""Every security group of an environment, in one stack so that no rule makes a cycle between stacks."""

from __future__ import annotations

from aws_cdk import aws_ec2 as ec2
from constructs import Construct

from stacks.config import EnvironmentConfig

POSTGRES, REDIS, NFS, HTTPS = 5432, 6379, 2049, 443
WEBSERVER, FLOWER, MLFLOW = 8080, 5555, 5000
WORKER_LOGS, TRIGGERER_LOGS = 8793, 8794
VERIFIER = 8790
PETS = 8000


class SecurityGroups(Construct):
    """One group for each kind of listener, one rule for each arrow; outbound only HTTPS and these arrows.

    A part that the environment doesn't have has no group.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, vpc: ec2.IVpc, config: EnvironmentConfig
    ) -> None:
        super().__init__(scope, construct_id)
        self._vpc = vpc
        self._callers: list[ec2.SecurityGroup] = []
        self.webserver = self._group("Webserver", "the webserver")
        self.airflow = self._group("Airflow", "every other Airflow task")
        self.load_metric = self._group("LoadMetric", "the load metric Lambda")
        self.reaper = self._group("Reaper", "the Lambda that stops SageMaker jobs without an owner")
        self.bastion = self._group("Bastion", "the bastion, reached by Session Manager only")
        self.jobs = self._group("Jobs", "SageMaker jobs inside the VPC")
        self.database = self._group("Database", "the metadata database", calls_out=False)
        self.releases = self._group("Releases", "the shared directory of DAG bundles", calls_out=False)
        self.mlflow = self._group("Mlflow", "the tracking server") if config.tracking.enabled else None
        self.pets = (
            self._group("Pets", "the application that tells cats from dogs")
            if config.pets is not None and config.pets.platform == "ecs"
            else None
        )
        self.broker = (
            self._group("Broker", "the Celery broker", calls_out=False)
            if config.broker.kind == "redis"
            else None
        )
        self.worker_hosts = (
            self._group("WorkerHosts", "the instances that workers run on")
            if config.has_worker_hosts
            else None
        )
        self._add_arrows(flower=config.services.flower is not None)
        if config.bastion_is_nat:
            self._let_out_through_bastion()

    def _group(self, name: str, of: str, *, calls_out: bool = True) -> ec2.SecurityGroup:
        group = ec2.SecurityGroup(self, name, vpc=self._vpc, description=f"Of {of}", allow_all_outbound=False)
        if calls_out:
            group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(HTTPS), "AWS APIs")
            self._callers.append(group)
        return group

    def _add_arrows(self, *, flower: bool) -> None:
        for source, target, port, what in (
            (self.airflow, self.webserver, WEBSERVER, "execution API"),
            (self.bastion, self.webserver, WEBSERVER, "tunnel to the UI"),
            (self.bastion, self.airflow if flower else None, FLOWER, "tunnel to Flower"),
            (self.bastion, self.mlflow, MLFLOW, "tunnel to MLflow"),
            (self.bastion, self.airflow, VERIFIER, "tests of candidate releases"),
            (self.airflow, self.mlflow, MLFLOW, "tracking"),
            (self.webserver, self.mlflow, MLFLOW, "tracking of runs that are marked by hand"),
            (self.airflow, self.pets, PETS, "smoke tests"),
            (self.bastion, self.pets, PETS, "tunnel to the application"),
            (self.webserver, self.airflow, WORKER_LOGS, "logs of running tasks"),
            (self.webserver, self.airflow, TRIGGERER_LOGS, "logs of deferred tasks"),
            (self.webserver, self.database, POSTGRES, "metadata"),
            (self.airflow, self.database, POSTGRES, "metadata"),
            (self.mlflow, self.database, POSTGRES, "runs and models"),
            (self.load_metric, self.database, POSTGRES, "load samples"),
            (self.reaper, self.database, POSTGRES, "task instances"),
            (self.bastion, self.database, POSTGRES, "tunnel to the database"),
            (self.webserver, self.broker, REDIS, "queues"),
            (self.airflow, self.broker, REDIS, "queues"),
            (self.webserver, self.releases, NFS, "bundles"),
            (self.airflow, self.releases, NFS, "bundles"),
            (self.bastion, self.releases, NFS, "bundles"),
        ):
            if source is not None and target is not None:
                source.connections.allow_to(target, ec2.Port.tcp(port), what)

    def _let_out_through_bastion(self) -> None:
        """What the groups may send to AWS passes the bastion's own network interface first."""
        for source in self._callers:
            if source is not self.bastion:
                self.bastion.add_ingress_rule(source, ec2.Port.tcp(HTTPS), "on the way out")
