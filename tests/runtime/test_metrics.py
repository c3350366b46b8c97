"""Airflow's metrics become lines that CloudWatch reads, few and whole.

`statsd` is in Airflow's environment alone: a stand-in for its base class is enough here.
"""

import io
import json
import sys
import time
import types
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def metrics() -> Iterator[Any]:
    statsd = types.ModuleType("statsd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statsd, "StatsClient", type("StatsClient", (), {}), raising=False)
        patch.setitem(sys.modules, "statsd", statsd)
        patch.setenv("UPDRAFT_PROJECT", "updraft")
        patch.setenv("UPDRAFT_ENVIRONMENT", "test")
        from runtime import metrics as module

        clock = Clock()
        patch.setattr(time, "monotonic", clock)
        yield types.SimpleNamespace(module=module, clock=clock)
    del sys.modules["runtime.metrics"]


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "__stdout__", stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    stream.truncate(0)
    stream.seek(0)
    return found


def test_a_line_comes_every_half_minute_and_holds_what_came_together(metrics: Any, out: io.StringIO) -> None:
    client = metrics.module.EmbeddedMetricsClient("host", 8125, None, False)
    client.incr("scheduler_heartbeat")
    client.gauge("executor.open_slots", 8)
    client.gauge("executor.open_slots", -3, delta=True)
    client.timing("delay", timedelta(seconds=2))
    assert lines(out) == []
    metrics.clock.now += 30
    client.incr("scheduler_heartbeat", 2)
    [line] = lines(out)
    assert line["scheduler_heartbeat"] == 3
    assert line["executor.open_slots"] == 5
    assert line["delay"] == [2000.0]
    assert line["environment"] == "test"
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == "updraft"
    assert directive["Dimensions"] == [["environment"]]
    assert {"Name": "delay", "Unit": "Milliseconds"} in directive["Metrics"]


def test_counters_start_again_and_gauges_stay(metrics: Any, out: io.StringIO) -> None:
    client = metrics.module.EmbeddedMetricsClient()
    client.incr("count")
    client.decr("count", 4)
    client.gauge("gauge", 7)
    client.close()
    assert lines(out)[0]["count"] == -3
    client.close()
    [line] = lines(out)
    assert "count" not in line
    assert line["gauge"] == 7


@given(names=st.lists(st.from_regex(r"[a-z_.]{1,40}", fullmatch=True), min_size=1, max_size=250, unique=True))
def test_no_line_has_more_than_cloudwatch_takes(metrics: Any, names: list[str]) -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "__stdout__", stream)
        client = metrics.module.EmbeddedMetricsClient()
        for name in names:
            client.incr(name)
        client.close()
    told = [
        metric["Name"] for line in lines(stream) for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    ]
    assert sorted(told) == sorted(names)
    assert all(len(line["_aws"]["CloudWatchMetrics"][0]["Metrics"]) <= 100 for line in lines(stream))
