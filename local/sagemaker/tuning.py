"""Random search: what to try next, and which trial was best."""

from __future__ import annotations

import math
import random
from typing import Any

Record = dict[str, Any]


def draw(ranges: Record, chance: random.Random) -> dict[str, str]:
    """One value for each range, as text, the way SageMaker hands it to a training."""
    drawn: dict[str, str] = {}
    for item in ranges.get("CategoricalParameterRanges", []):
        drawn[item["Name"]] = chance.choice(item["Values"])
    for item in ranges.get("IntegerParameterRanges", []):
        drawn[item["Name"]] = str(round(_scaled(item, chance)))
    for item in ranges.get("ContinuousParameterRanges", []):
        drawn[item["Name"]] = repr(_scaled(item, chance))
    return drawn


def _scaled(item: Record, chance: random.Random) -> float:
    low, high = float(item["MinValue"]), float(item["MaxValue"])
    if item.get("ScalingType") == "Logarithmic":
        return math.exp(chance.uniform(math.log(low), math.log(high)))
    return chance.uniform(low, high)


def objective(training: Record, metric: str) -> float | None:
    """The objective's last value of a completed training."""
    if training["TrainingJobStatus"] != "Completed":
        return None
    values = [
        item["Value"] for item in training.get("FinalMetricDataList", []) if item["MetricName"] == metric
    ]
    return values[-1] if values else None


def best_trial(trials: list[Record], wanted: Record) -> Record | None:
    """The summary of the best trial so far; None before one has reported the objective."""
    scored = [
        (value, trial) for trial in trials if (value := objective(trial, wanted["MetricName"])) is not None
    ]
    if not scored:
        return None
    sign = 1 if wanted["Type"] == "Maximize" else -1
    _, trial = max(scored, key=lambda pair: sign * pair[0])
    return summary(trial, wanted)


def summary(trial: Record, wanted: Record) -> Record:
    """What a tuning job tells of one of its trainings."""
    value = objective(trial, wanted["MetricName"])
    ended = trial["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")
    told: Record = {
        key: trial[key]
        for key in (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "TrainingStartTime",
            "TrainingEndTime",
            "TrainingJobStatus",
            "FailureReason",
        )
        if key in trial
    }
    told |= {
        "TunedHyperParameters": trial["_tuned"],
        "ObjectiveStatus": "Succeeded" if value is not None else "Failed" if ended else "Pending",
    }
    if value is not None:
        told["FinalHyperParameterTuningJobObjectiveMetric"] = {
            "MetricName": wanted["MetricName"],
            "Value": value,
        }
    return told
