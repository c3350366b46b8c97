"""The gate between a trained model and a registered one, and the registration itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from pets.settings import PetsSettings
from runtime.sagemaker.registry import origin, register_version


def accept(report: Mapping[str, Any], *, threshold: float) -> dict[str, Any]:
    """The report of a model that is good enough; raises AirflowFailException for one that isn't."""
    accuracy, baseline = report["accuracy"], report["baseline"]["accuracy"]
    told = f"{accuracy:.3f} of {report['pictures']} held-out pictures are told right"
    if accuracy <= baseline:
        raise AirflowFailException(f"{told}, no more than the baseline's {baseline:.3f}")
    if accuracy < threshold:
        raise AirflowFailException(f"{told}, at least {threshold} are asked for")
    return dict(report)


def register(
    pets: PetsSettings,
    *,
    name: str,
    model_uri: str,
    report: Mapping[str, Any],
    context: Mapping[str, Any],
) -> dict[str, str]:
    """Register the model as an approved version; `name` is the training's, which has no second one."""
    accuracy, baseline = report["accuracy"], report["baseline"]["accuracy"]
    arn = register_version(
        name=name,
        group=pets.model_package_group,
        description=f"accuracy {accuracy:.4f}, baseline {baseline:.4f}",
        scores={"accuracy": accuracy, "baseline": baseline},
        metadata={"model_uri": model_uri, **origin(context)},
        # It is served by the application's image and by no endpoint, so there is no inference container to name.
        model={"SourceUri": model_uri},
    )
    return {"model_package_arn": arn}
