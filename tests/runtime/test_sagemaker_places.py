"""What each kind of job reads and writes, from its description."""

from typing import Any

import pytest

from runtime.sagemaker.kinds import places

CHANNEL = {"DataSource": {"S3DataSource": {"S3Uri": "s3://data/train/"}}}
MODEL = {"S3ModelArtifacts": "s3://data/model.tar.gz"}


@pytest.mark.parametrize(
    ("kind", "job", "sources", "destinations"),
    [
        ("training", {"InputDataConfig": [CHANNEL], "ModelArtifacts": MODEL}, ["s3://data/train/"], ["s3://data/model.tar.gz"]),
        ("training", {}, [], []),
        ("tuning", {"TrainingJobDefinition": {"InputDataConfig": [CHANNEL]}}, ["s3://data/train/"], []),
        (
            "processing",
            {
                "ProcessingInputs": [{"S3Input": {"S3Uri": "s3://data/raw"}}, {"DatasetDefinition": {}}],
                "ProcessingOutputConfig": {"Outputs": [{"S3Output": {"S3Uri": "s3://data/out"}}]},
            },
            ["s3://data/raw"], ["s3://data/out"],
        ),
        (
            "transform",
            {
                "TransformInput": {"DataSource": {"S3DataSource": {"S3Uri": "s3://data/batch/"}}},
                "TransformOutput": {"S3OutputPath": "s3://data/predictions"},
            },
            ["s3://data/batch/"], ["s3://data/predictions"],
        ),
    ],
)  # fmt: skip
def test_places_of_a_job(kind: str, job: dict[str, Any], sources: list[str], destinations: list[str]) -> None:
    assert places(kind, job) == (sources, destinations)
