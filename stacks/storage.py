"""Everything that holds data: database, broker, buckets, the shared directory of releases, and secrets."""

from __future__ import annotations

import json
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_efs as efs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_ssm as ssm
from constructs import Construct, IConstruct

from stacks.config import EnvironmentConfig
from stacks.constructs.broker import Broker
from stacks.constructs.log_group import log_group
from stacks.constructs.private_bucket import PrivateBucket
from stacks.constructs.removal import data_removal_policy
from stacks.network import NetworkStack
from stacks.waivers import waive

DATABASE_NAME = "airflow"
# Of the database, of its role, and of the connection by which DAGs reach it.
WAREHOUSE = "warehouse"
# Characters that mean something in a URL, a shell or to RDS stay out of generated passwords.
EXCLUDED_CHARACTERS = "/@\"' %:?#[]{}()\\|^&=+,;<>`~$*!"


class StorageStack(cdk.Stack):
    """`database`, `broker`, `logs`, `bundles`, `data` (buckets), `releases` (EFS) and `secrets`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        config: EnvironmentConfig,
        network: NetworkStack,
        **kwargs: Any,
    ) -> None:
        super().__init__(scope, construct_id, termination_protection=config.keep_data_on_destroy, **kwargs)
        self._removal_policy = data_removal_policy(config)
        self.database = self._build_database(config, network)
        self.broker = Broker(self, "Broker", config=config, network=network, generate=self._build_secret)
        self.logs = PrivateBucket(
            self,
            "Logs",
            removal_policy=self._removal_policy,
            expire_days=90,
            takes_access_logs=config.hardened,
        ).bucket
        access_logs = self.logs if config.hardened else None
        self.bundles = PrivateBucket(
            self, "Bundles", removal_policy=self._removal_policy, access_logs=access_logs
        ).bucket
        self.data = PrivateBucket(
            self, "Data", removal_policy=self._removal_policy, access_logs=access_logs
        ).bucket
        self.releases = self._build_releases(config, network)
        self.fernet_secret = self._build_secret(
            "FernetSecret", "Encrypts connections and variables in the database"
        )
        self.jwt_secret = self._build_secret("JwtSecret", "Signs the tokens of the execution API")
        self.api_secret = self._build_secret("ApiSecret", "Signs the sessions of the UI")
        self.verifier_secret = self._build_secret("VerifierSecret", "Signs requests to the verifier")
        ssm.StringParameter(
            self,
            "VerifierSecretParameter",
            parameter_name=f"{config.ssm_prefix}/verifier/secret-arn",
            string_value=self.verifier_secret.secret_arn,
            description="Read by the deployment hooks on the bastion, which is made before the secret",
        )
        self.admin = self._build_login("Admin", "admin")
        self.flower_login = self._build_login("FlowerLogin", "flower") if config.services.flower else None
        # Here and not beside its server: the Airflow containers, which are made before that, log in with it.
        self.tracking_login = self._build_login("TrackingLogin", "admin") if config.tracking.enabled else None
        self.warehouse_connection = (
            self._build_warehouse_connection(config) if config.warehouse.enabled else None
        )
        self._add_outputs()

    @property
    def database_secret(self) -> secretsmanager.ISecret:
        """Keys `username` and `password` of the database's owner."""
        secret = self.database.secret
        assert secret is not None, "credentials are always generated"
        return secret

    def _build_database(self, config: EnvironmentConfig, network: NetworkStack) -> rds.DatabaseInstance:
        # The major alone: RDS takes its default minor. AWS stops creating old minors every few months.
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_17)
        settings = config.database
        exports = self._build_database_logs(config) if config.hardened else []
        database = rds.DatabaseInstance(
            self,
            "MetadataDb",
            engine=engine,
            instance_identifier=f"{config.prefix}-metadata",
            instance_type=ec2.InstanceType(settings.instance_class.removeprefix("db.")),
            vpc=network.vpc,
            vpc_subnets=network.data_subnets,
            security_groups=[network.groups.database],
            database_name=DATABASE_NAME,
            credentials=rds.Credentials.from_generated_secret(
                "airflow_owner", exclude_characters=EXCLUDED_CHARACTERS
            ),
            parameter_group=rds.ParameterGroup(
                self,
                "MetadataDbParameters",
                engine=engine,
                # Lineage tells by the transactions' times when a table was made and last written.
                parameters={"rds.force_ssl": "1", "track_commit_timestamp": "1"},
            ),
            allocated_storage=settings.storage_gib,
            storage_type=rds.StorageType.GP3,
            storage_encrypted=True,
            multi_az=settings.multi_az,
            iam_authentication=True,
            backup_retention=cdk.Duration.days(settings.backup_retention_days),
            delete_automated_backups=not config.keep_data_on_destroy,
            deletion_protection=settings.deletion_protection,
            removal_policy=cdk.RemovalPolicy.SNAPSHOT
            if config.keep_data_on_destroy
            else cdk.RemovalPolicy.DESTROY,
            auto_minor_version_upgrade=True,
            copy_tags_to_snapshot=True,
            cloudwatch_logs_exports=[name for name, _ in exports] or None,
            monitoring_interval=cdk.Duration.minutes(1) if config.hardened else None,
        )
        for _, group in exports:
            database.node.add_dependency(group)
        self._waive_database(database, config)
        return database

    def _build_database_logs(self, config: EnvironmentConfig) -> list[tuple[str, logs.LogGroup]]:
        """Made before RDS would make them itself, and keep them for ever."""
        return [
            (
                name,
                log_group(
                    self,
                    f"MetadataDb-{name}-logs",
                    name=f"/aws/rds/instance/{config.prefix}-metadata/{name}",
                    retention_days=config.log_retention_days,
                ),
            )
            for name in ("postgresql", "upgrade")
        ]

    def _waive_database(self, database: rds.DatabaseInstance, config: EnvironmentConfig) -> None:
        waive(
            database,
            "Only named security groups reach it, whatever the port",
            "AwsSolutions-RDS11",
        )
        waive(
            database,
            "RDS backs it up itself, for as long as the environment says",
            "NIST.800.53.R5-RDSInBackupPlan",
        )
        if not config.database.multi_az:
            waive(database, "The environment's file chooses one zone, for its cost", "AwsSolutions-RDS3")
        if not config.database.deletion_protection:
            waive(database, "The environment's file says that it may be destroyed", "AwsSolutions-RDS10")
        if config.database.backup_retention_days == 0:
            waive(database, "The environment's file asks for no backups", "AwsSolutions-RDS13")
        waive_unrotated(database.node.find_child("Secret"))
        if config.hardened:
            waive(
                database.node.find_child("MonitoringRole"),
                "Enhanced monitoring takes exactly this policy of AWS",
                "AwsSolutions-IAM4",
            )

    def _build_releases(self, config: EnvironmentConfig, network: NetworkStack) -> efs.FileSystem:
        releases = efs.FileSystem(
            self,
            "Releases",
            vpc=network.vpc,
            vpc_subnets=network.data_subnets,
            security_group=network.groups.releases,
            encrypted=True,
            throughput_mode=efs.ThroughputMode.ELASTIC,
            lifecycle_policy=efs.LifecyclePolicy.AFTER_30_DAYS,
            # CDK's own policy would let everybody who mounts it write; with this one the roles' policies decide.
            allow_anonymous_access=True,
            file_system_policy=iam.PolicyDocument(
                statements=[
                    iam.PolicyStatement(
                        effect=iam.Effect.DENY,
                        principals=[iam.AnyPrincipal()],
                        actions=["*"],
                        conditions={"Bool": {"aws:SecureTransport": "false"}},
                    )
                ]
            ),
            removal_policy=self._removal_policy,
        )
        waive(
            releases,
            "Every release can be pushed again from the bundles bucket, which keeps its versions",
            "NIST.800.53.R5-EFSInBackupPlan",
        )
        ssm.StringParameter(
            self,
            "ReleasesFileSystemParameter",
            parameter_name=f"{config.ssm_prefix}/releases/file-system-id",
            string_value=releases.file_system_id,
            description="Read by the bastion at boot, which is made before the file system",
        )
        return releases

    def _build_secret(self, construct_id: str, description: str) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            construct_id,
            description=description,
            generate_secret_string=secretsmanager.SecretStringGenerator(
                password_length=64, exclude_punctuation=True
            ),
            removal_policy=self._removal_policy,
        )
        waive_unrotated(secret)
        return secret

    def _build_login(self, construct_id: str, username: str) -> secretsmanager.Secret:
        secret = secretsmanager.Secret(
            self,
            construct_id,
            description=f"Log-in of {username}",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=f'{{"username": "{username}"}}',
                generate_string_key="password",
                password_length=24,
                exclude_punctuation=True,
            ),
            removal_policy=self._removal_policy,
        )
        waive_unrotated(secret)
        return secret

    def _build_warehouse_connection(self, config: EnvironmentConfig) -> secretsmanager.Secret:
        """As Airflow's secrets backend reads it; the role and its database are made by the migration."""
        connection = {
            "conn_type": "postgres",
            "host": self.database.db_instance_endpoint_address,
            "port": self.database.db_instance_endpoint_port,
            "schema": WAREHOUSE,
            "login": WAREHOUSE,
            # The image's environment names the authorities: PGSSLROOTCERT in docker/airflow/Dockerfile.
            "extra": {"sslmode": "verify-full", "sqlalchemy_query": {"sslmode": "verify-full"}},
        }
        secret = secretsmanager.Secret(
            self,
            "WarehouseConnection",
            secret_name=f"{config.ssm_prefix.lstrip('/')}/connections/{WAREHOUSE}",
            description="Connection of DAGs to the warehouse database",
            generate_secret_string=secretsmanager.SecretStringGenerator(
                secret_string_template=json.dumps(connection),
                generate_string_key="password",
                password_length=32,
                exclude_punctuation=True,
            ),
            removal_policy=self._removal_policy,
        )
        waive_unrotated(
            secret,
            "The migration gives the role this password: one that rotated by itself would not be the role's",
        )
        return secret

    def _add_outputs(self) -> None:
        for name, value in {
            "DatabaseIdentifier": self.database.instance_identifier,
            "DatabaseEndpoint": self.database.db_instance_endpoint_address,
            "DatabasePort": self.database.db_instance_endpoint_port,
            "DatabaseSecretArn": self.database_secret.secret_arn,
            "LogsBucket": self.logs.bucket_name,
            "BundlesBucket": self.bundles.bucket_name,
            "DataBucket": self.data.bucket_name,
            "ReleasesFileSystemId": self.releases.file_system_id,
        }.items():
            cdk.CfnOutput(self, name, value=value)


def waive_unrotated(
    secret: IConstruct,
    reason: str = "ECS hands secrets to tasks at their start: one that rotated would lock the running ones out",
) -> None:
    """Why no secret of ours rotates by itself."""
    waive(
        secret,
        reason,
        "AwsSolutions-SMG4",
        "NIST.800.53.R5-SecretsManagerRotationEnabled",
    )
    waive(
        secret,
        "Secrets Manager encrypts with its own key; only named roles of this account may read it",
        "NIST.800.53.R5-SecretsManagerUsingKMSKey",
    )
