"""One CloudWatch page for an environment: load and workers, Airflow itself, database and broker."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from stacks.config import EnvironmentConfig
from stacks.storage import StorageStack

WIDTH = 12
PERIOD = cdk.Duration.minutes(1)
# What the load metric publishes of each queue (lambdas/load_metric).
LOAD = ("QueuedTasks", "RunningTasks", "LiveWorkers", "WantedWorkers")
# Airflow's own names, by what they tell (airflow_environment.METRICS).
AIRFLOW = {
    "Scheduler": ("scheduler.tasks.starving", "scheduler.tasks.executable", "scheduler.dagruns.running"),
    "Executor": ("executor.open_slots", "executor.queued_tasks", "executor.running_tasks"),
    "DAG files": ("dagbag_size", "dag_processing.import_errors", "dag_processing.total_parse_time"),
    "Triggers": ("triggers.succeeded", "triggers.failed"),
}
SUMMED = {"triggers.succeeded", "triggers.failed"}


class Dashboard(Construct):
    """The page is named as the environment's prefix."""

    def __init__(
        self, scope: Construct, construct_id: str, *, config: EnvironmentConfig, storage: StorageStack
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        widgets = [self._load_of(queue) for queue in config.workers]
        if config.airflow.metrics:
            widgets += [
                self._graph(title, [self._airflow(name) for name in names])
                for title, names in AIRFLOW.items()
            ]
        database = storage.database
        widgets += [
            self._graph(
                "Database: CPU percent and connections",
                [database.metric_cpu_utilization(), database.metric_database_connections()],
            ),
            self._graph("Database: free storage in bytes", [database.metric_free_storage_space()]),
            self._broker(storage),
        ]
        page = cloudwatch.Dashboard(self, "Page", dashboard_name=config.prefix)
        page.add_widgets(*widgets)

    def _load_of(self, queue: str) -> cloudwatch.GraphWidget:
        dimensions = {"environment": self._config.environment, "queue": queue}
        return self._graph(
            f"Queue {queue}: tasks and workers",
            [
                cloudwatch.Metric(
                    namespace=self._config.project,
                    metric_name=name,
                    dimensions_map=dimensions,
                    statistic="Maximum",
                    period=PERIOD,
                )
                for name in LOAD
            ],
        )

    def _airflow(self, name: str) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=self._config.project,
            metric_name=name,
            dimensions_map={"environment": self._config.environment},
            # Two schedulers tell the same gauges; what was counted adds up.
            statistic="Sum" if name in SUMMED else "Maximum",
            period=PERIOD,
        )

    def _broker(self, storage: StorageStack) -> cloudwatch.GraphWidget:
        queues = storage.broker.queues
        if queues:
            waiting = [queue.metric_approximate_number_of_messages_visible() for queue in queues.values()]
            return self._graph("Broker: messages waiting", waiting)
        memory = cloudwatch.Metric(
            namespace="AWS/ElastiCache",
            metric_name="DatabaseMemoryUsagePercentage",
            # ElastiCache tells by node; the first of a group is named so.
            dimensions_map={"CacheClusterId": f"{storage.broker.group_id}-001"},
            statistic="Maximum",
            period=PERIOD,
        )
        return self._graph("Broker: memory in percent", [memory])

    def _graph(self, title: str, metrics: Sequence[cloudwatch.IMetric]) -> cloudwatch.GraphWidget:
        return cloudwatch.GraphWidget(title=title, width=WIDTH, left=list(metrics))
