"""The SageMaker requests of the flights workflow. Name, tags and limits are added by the operator."""

from __future__ import annotations

from typing import Any

from runtime.sagemaker import forms
from runtime.sagemaker.forms import INPUT, OUTPUT
from runtime.settings import WorkflowSettings

Request = dict[str, Any]
VOLUME_GIB = 20
METRICS = [
    {"Name": "train:auc", "Regex": r"train-auc=([0-9.]+)"},
    {"Name": "validation:auc", "Regex": r"validation-auc=([0-9.]+)"},
]


def prepare(settings: WorkflowSettings, *, prefix: str) -> Request:
    """Processing: raw splits in, feature matrices out."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    return _processing(
        settings,
        program="prepare",
        inputs={"raw": (f"{root}/input", INPUT)},
        outputs={"prepared": (f"{root}/prepared", OUTPUT)},
    )


def train(
    settings: WorkflowSettings, *, prefix: str, instance_type: str | None, hyperparameters: Request
) -> Request:
    """Training on the instance type of the environment, or another one that the run asks for.

    On demand, so there are no checkpoints: a training after a clear would take the finished one's, and learn nothing.
    """
    return {
        **_training(
            settings, prefix=prefix, instance_type=instance_type or settings.instance_types["training"]
        ),
        "HyperParameters": {name: str(value) for name, value in hyperparameters.items()},
    }


def build(settings: WorkflowSettings, *, prefix: str, point: dict[str, Any]) -> Request:
    """Training with `max_depth` and `n_estimators`, on the instance type for searches: it is small and has no GPU."""
    return train(
        settings,
        prefix=prefix,
        instance_type=settings.instance_types["tuning"],
        hyperparameters={"max_depth": point["max_depth"], "rounds": point["n_estimators"]},
    )


def tune(settings: WorkflowSettings, *, prefix: str, jobs: int | str, rounds: int | str) -> Request:
    """Tuning: a bounded random search around the training's hyper-parameters."""
    definition = _training(settings, prefix=prefix, instance_type=settings.instance_types["tuning"])
    algorithm = definition.pop("AlgorithmSpecification")
    return {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "RandomSeed": 7,
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "validation:auc"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": int(jobs), "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "IntegerParameterRanges": [{"Name": "max_depth", "MinValue": "3", "MaxValue": "8"}],
                "ContinuousParameterRanges": [
                    {"Name": "eta", "MinValue": "0.05", "MaxValue": "0.3", "ScalingType": "Logarithmic"}
                ],
            },
        },
        "TrainingJobDefinition": {
            **definition,
            "AlgorithmSpecification": {**algorithm, "MetricDefinitions": METRICS},
            "StaticHyperParameters": {"rounds": str(rounds)},
        },
    }


def evaluate(settings: WorkflowSettings, *, prefix: str, candidates: dict[str, str]) -> Request:
    """Processing: each candidate's artifact (by name) against the baseline on the test flights."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    inputs = {part: (f"{root}/prepared/{part}", f"{INPUT}/{part}") for part in ("train", "test")}
    inputs |= {f"model-{name}": (uri, f"{INPUT}/model-{name}") for name, uri in candidates.items()}
    return _processing(
        settings,
        program="evaluate",
        inputs=inputs,
        outputs={"evaluation": (f"{root}/evaluation", f"{OUTPUT}/evaluation")},
    )


def transform(settings: WorkflowSettings, *, prefix: str, model_name: str) -> Request:
    """Batch transform of the test flights without their labels."""
    root = f"s3://{settings.data_bucket}/{prefix}"
    return forms.csv_transform(
        settings, model_name=model_name, rows=f"{root}/prepared/batch/", predictions=f"{root}/predictions"
    )


def _training(settings: WorkflowSettings, *, prefix: str, instance_type: str) -> Request:
    root = f"s3://{settings.data_bucket}/{prefix}"
    return forms.training(
        settings,
        image=settings.training_image,
        instance_type=instance_type,
        volume_gib=VOLUME_GIB,
        metrics=METRICS,
        inputs=f"{root}/prepared",
        models=f"{root}/models",
    )


def _processing(
    settings: WorkflowSettings,
    *,
    program: str,
    inputs: dict[str, tuple[str, str]],
    outputs: dict[str, tuple[str, str]],
) -> Request:
    return forms.processing(
        settings,
        image=settings.training_image,
        entrypoint=["python", "-m", "ml.container", program],
        volume_gib=VOLUME_GIB,
        inputs=inputs,
        outputs=outputs,
    )
