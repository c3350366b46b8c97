"""The environment variables and secrets of every Airflow container: plain Airflow options, and the parts that
the image's entry point puts together (docs/architecture.md)."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import aws_cdk as cdk
from aws_cdk import aws_ecs as ecs

from stacks.config import EnvironmentConfig
from stacks.constructs.airflow_task import RELEASES_DIRECTORY
from stacks.constructs.security_groups import MLFLOW
from stacks.storage import DATABASE_NAME, StorageStack

BUNDLE = "updraft"
METRICS_DATABASE_USER = "load_metric"
# AWS's own connection stands in the environment: asking Secrets Manager for it would cost a call every time.
CONNECTIONS_IN_SECRETS_MANAGER = "^(?!aws_default$)"
# What the dashboard shows and alarms watch; CloudWatch bills each metric by its name.
METRICS = (
    "scheduler_heartbeat",
    "dag_processor_heartbeat",
    "triggerer_heartbeat",
    "scheduler.tasks",
    "scheduler.dagruns.running",
    "scheduler.orphaned_tasks",
    "executor.open_slots",
    "executor.queued_tasks",
    "executor.running_tasks",
    "pool.open_slots",
    "pool.starving_tasks",
    "dag_processing.import_errors",
    "dag_processing.total_parse_time",
    "dag_processing.file_path_queue_size",
    "dagbag_size",
    "triggers.succeeded",
    "triggers.failed",
)
# A heartbeat every 5 s, each tried five times with growing waits, so that a task outlasts a Multi-AZ failover of the
# database (60 to 120 s), and also the 300 s after which the scheduler gives it to a retry: that one takes the job over.
MAX_FAILED_HEARTBEATS = 36
# The files of a release never change; what they read elsewhere may, so they are parsed again now and then.
PARSE_INTERVAL_SECONDS = 300
# The provider waits so long at a task's start and again at its end, and gives up.
OPENLINEAGE_SECONDS = 1
# Where docker/airflow/Dockerfile copies `runtime/plugins` to.
PLUGINS_DIRECTORY = "/opt/updraft/runtime/plugins"
# A switch is live when every file has been parsed.
PARSING_PROCESSES = 4


def pointer_parameter(config: EnvironmentConfig) -> str:
    """The SSM parameter that holds the live bundle version."""
    return f"{config.ssm_prefix}/bundle/pointer"


def environment(config: EnvironmentConfig, storage: StorageStack) -> dict[str, str]:
    """What every Airflow container gets in the clear."""
    namespace = f"{config.prefix}.internal"
    broker: dict[str, str] = {"UPDRAFT_BROKER": storage.broker.kind}
    if storage.broker.kind == "redis":
        broker |= {"UPDRAFT_BROKER_HOST": storage.broker.host, "UPDRAFT_BROKER_PORT": storage.broker.port}
    else:
        broker |= {
            "UPDRAFT_BROKER_QUEUES": json.dumps(
                {name: queue.queue_url for name, queue in storage.broker.queues.items()}
            ),
            "UPDRAFT_BROKER_VISIBILITY_TIMEOUT_SECONDS": str(config.broker.visibility_timeout_seconds),
        }
    return {
        "UPDRAFT_PROJECT": config.project,
        "UPDRAFT_ENVIRONMENT": config.environment,
        "UPDRAFT_SSM_PREFIX": config.ssm_prefix,
        "UPDRAFT_CLUSTER": config.prefix,
        "UPDRAFT_RELEASES_DIRECTORY": RELEASES_DIRECTORY,
        "UPDRAFT_DATABASE_HOST": storage.database.db_instance_endpoint_address,
        "UPDRAFT_DATABASE_PORT": storage.database.db_instance_endpoint_port,
        "UPDRAFT_DATABASE_NAME": DATABASE_NAME,
        "UPDRAFT_DATA_BUCKET": storage.data.bucket_name,
        **broker,
        **_tracking(config, namespace),
        **_openlineage(config),
        **_airflow_options(config, storage, namespace),
    }


def _tracking(config: EnvironmentConfig, namespace: str) -> dict[str, str]:
    """Where MLflow's own client finds its server; the log-in is among the secrets."""
    if not config.tracking.enabled:
        return {}
    return {
        "MLFLOW_TRACKING_URI": f"http://mlflow.{namespace}:{MLFLOW}",
        "AIRFLOW__CORE__PLUGINS_FOLDER": PLUGINS_DIRECTORY,
    }


def _openlineage(config: EnvironmentConfig) -> dict[str, str]:
    """Airflow's own OpenLineage provider, which does nothing without these."""
    url = config.tracking.openlineage_url
    if url is None:
        return {}
    parts = urlsplit(url)
    transport = {"type": "http", "url": f"{parts.scheme}://{parts.netloc}"}
    if path := parts.path.strip("/"):
        transport["endpoint"] = path
    return {
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": config.prefix,
        "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": str(OPENLINEAGE_SECONDS),
    }


def _airflow_options(config: EnvironmentConfig, storage: StorageStack, namespace: str) -> dict[str, str]:
    bundles = [
        {
            "name": BUNDLE,
            "classpath": "runtime.bundle.ReleaseBundle",
            "kwargs": {
                "pointer_parameter": pointer_parameter(config),
                "releases_directory": RELEASES_DIRECTORY,
                "refresh_interval": 0,
            },
        }
    ]
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(_parallelism(config)),
        # When the pool is made. With more, tasks would wait in the broker for longer than they may.
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(_slots(config)),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://webserver.{namespace}:8080/execution/",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "airflow.utils.net.get_host_ip_address",
        "AIRFLOW__CORE__DEFAULT_TIMEZONE": "utc",
        "AIRFLOW__API__EXPOSE_CONFIG": "False",
        "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "True",
        # A queued task's token lives as long; workers may have to start first.
        "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": str(config.airflow.task_queued_timeout_seconds),
        **_secrets_backend(config),
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        # Beside the logs, which expire as the metadata does.
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"s3://aws_default@{storage.logs.bucket_name}/xcom",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": str(config.airflow.xcom_threshold_bytes),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION": "gzip",
        "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": str(MAX_FAILED_HEARTBEATS),
        "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        # The bundle itself decides how often it asks for the pointer.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "0",
        "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "0",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": str(PARSE_INTERVAL_SECONDS),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": str(PARSING_PROCESSES),
        # With an interval, a DAG that changed twice within it would run the newer code by the older graph.
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": storage.logs.s3_url_for_object("tasks"),
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": "8793",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": "8794",
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "AWS_REGION": config.region,
        "AWS_DEFAULT_REGION": config.region,
    }


def _secrets_backend(config: EnvironmentConfig) -> dict[str, str]:
    """Connections and variables come from Secrets Manager first, then from the environment and the database."""
    place = config.ssm_prefix.lstrip("/")
    return {
        "AIRFLOW__SECRETS__BACKEND": "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(
            {
                "connections_prefix": f"{place}/connections",
                "connections_lookup_pattern": CONNECTIONS_IN_SECRETS_MANAGER,
                "variables_prefix": f"{place}/variables",
                "config_prefix": None,
            }
        ),
    }


def user_secrets(stack: cdk.Stack, config: EnvironmentConfig) -> list[str]:
    """The ARNs under which users keep connections and variables."""
    return [
        stack.format_arn(
            service="secretsmanager",
            resource="secret",
            resource_name=f"{config.ssm_prefix.lstrip('/')}/{kind}/*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for kind in ("connections", "variables")
    ]


def metrics(config: EnvironmentConfig) -> dict[str, str]:
    """Airflow's own metrics, in the processes whose standard output is a log group and not a task's log."""
    if not config.airflow.metrics:
        return {}
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_CUSTOM_CLIENT_PATH": "runtime.metrics.EmbeddedMetricsClient",
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": ",".join(f"^{re.escape(name)}" for name in METRICS),
    }


def _parallelism(config: EnvironmentConfig) -> int:
    """As many task instances as the fleets have slots at most: twice as many while a deployment replaces workers."""
    return 2 * _slots(config)


def _slots(config: EnvironmentConfig) -> int:
    """The slots of all fleets at their `max`."""
    return sum(worker.max * worker.concurrency for worker in config.workers.values())


def secrets(storage: StorageStack) -> dict[str, ecs.Secret]:
    """What every Airflow container gets from Secrets Manager."""
    found = {
        "UPDRAFT_DATABASE_USER": ecs.Secret.from_secrets_manager(storage.database_secret, "username"),
        "UPDRAFT_DATABASE_PASSWORD": ecs.Secret.from_secrets_manager(storage.database_secret, "password"),
        "UPDRAFT_FERNET_SECRET": ecs.Secret.from_secrets_manager(storage.fernet_secret),
        "AIRFLOW__API_AUTH__JWT_SECRET": ecs.Secret.from_secrets_manager(storage.jwt_secret),
        "AIRFLOW__API__SECRET_KEY": ecs.Secret.from_secrets_manager(storage.api_secret),
    }
    if storage.tracking_login is not None:
        found["MLFLOW_TRACKING_USERNAME"] = ecs.Secret.from_secrets_manager(
            storage.tracking_login, "username"
        )
        found["MLFLOW_TRACKING_PASSWORD"] = ecs.Secret.from_secrets_manager(
            storage.tracking_login, "password"
        )
    if storage.broker.password is not None:
        found["UPDRAFT_BROKER_PASSWORD"] = ecs.Secret.from_secrets_manager(storage.broker.password)
    return found
