"""Airflow's metrics into CloudWatch, as lines of its embedded metric format in the container's own log.

CloudWatch makes metrics of such lines by itself: no agent beside each container, no permission, nothing to listen.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from datetime import timedelta
from typing import Any

from statsd import StatsClient

# Every line costs ingestion, and dashboards show minutes.
FLUSH_SECONDS = 30.0
# CloudWatch takes at most this many metrics in a line and values of a metric.
MOST_AT_ONCE = 100


class EmbeddedMetricsClient(StatsClient):
    """What Airflow takes as its StatsD client (`metrics.statsd_custom_client_path`); it sends nothing anywhere.

    Counters add up, gauges keep their last value, timings their values in milliseconds. What has come together is
    written as one line with the first call after 30 seconds.
    """

    def __init__(self, *_address: Any) -> None:
        # No socket: the base class would open one.
        self._prefix = None
        self._namespace = os.environ["UPDRAFT_PROJECT"]
        self._environment = os.environ["UPDRAFT_ENVIRONMENT"]
        self._lock = threading.Lock()
        self._flushed_at = time.monotonic()
        self._counts: dict[str, float] = {}
        self._gauges: dict[str, float] = {}
        self._timings: dict[str, list[float]] = {}

    def incr(self, stat: str, count: float = 1, rate: float = 1) -> None:
        """Add to a counter."""
        del rate
        with self._lock:
            self._counts[stat] = self._counts.get(stat, 0) + count
            self._flush_if_due()

    def decr(self, stat: str, count: float = 1, rate: float = 1) -> None:
        """Take from a counter."""
        self.incr(stat, -count, rate)

    def gauge(self, stat: str, value: float, rate: float = 1, delta: bool = False) -> None:
        """Set a gauge, or move it."""
        del rate
        with self._lock:
            self._gauges[stat] = self._gauges.get(stat, 0) + value if delta else value
            self._flush_if_due()

    def timing(self, stat: str, delta: float | timedelta, rate: float = 1) -> None:
        """Note a duration, in milliseconds or as a timedelta."""
        del rate
        milliseconds = delta.total_seconds() * 1000 if isinstance(delta, timedelta) else float(delta)
        with self._lock:
            values = self._timings.setdefault(stat, [])
            if len(values) < MOST_AT_ONCE:
                values.append(milliseconds)
            self._flush_if_due()

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            self._flush()

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed_at >= FLUSH_SECONDS:
            self._flush()

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        values: dict[str, Any] = {**self._counts, **self._gauges, **self._timings}
        names = list(values)
        # A gauge stays what it is; what was counted has been told.
        self._counts, self._timings = {}, {}
        for first in range(0, len(names), MOST_AT_ONCE):
            part = names[first : first + MOST_AT_ONCE]
            print(json.dumps(self._line(part, values)), file=sys.__stdout__, flush=True)

    def _line(self, names: list[str], values: dict[str, Any]) -> dict[str, Any]:
        metrics = [
            {"Name": name, "Unit": "Milliseconds" if isinstance(values[name], list) else "Count"}
            for name in names
        ]
        directive = {"Namespace": self._namespace, "Dimensions": [["environment"]], "Metrics": metrics}
        return {
            "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]},
            "environment": self._environment,
            **{name: values[name] for name in names},
        }
