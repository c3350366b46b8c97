"""Ends whatever a run may have left behind, however it ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import boto3

from pets import ecs
from pets.settings import PetsSettings
from runtime.sagemaker.jobs import Job
from runtime.sagemaker.kinds import KINDS
from runtime.settings import WorkflowSettings

USED = ("processing", "training")
# What tells a run's jobs from those of every other one: DAGs with the same schedule have runs of the same id.
OF_RUN = ("updraft:dag", "updraft:run")
MOST_AT_ONCE = 1000
log = logging.getLogger(__name__)


def clean_up(
    settings: WorkflowSettings,
    pets: PetsSettings,
    *,
    tags: Sequence[Mapping[str, str]],
    prefix: str,
    marker: str,
) -> dict[str, Any]:
    """Stop the run's SageMaker jobs and its candidate on ECS, and delete its checkpoints; returns what there was.

    `tags` are those that a task of the run puts on its jobs.
    """
    stopped = [job.name for job in _running_jobs(tags) if job.stop(by="airflow", reason="its run has ended")]
    candidates = ecs.stop_candidates(pets.ecs, marker) if pets.ecs is not None else []
    deleted = _delete(settings.data_bucket, f"{prefix}/checkpoints/")
    log.info("stopped: %s; deleted: %d checkpoints", ", ".join([*stopped, *candidates]) or "nothing", deleted)
    return {"jobs": stopped, "candidates": candidates, "checkpoints": deleted}


def _running_jobs(tags: Sequence[Mapping[str, str]]) -> list[Job]:
    """The run's jobs that have not ended, by their tags."""
    client = boto3.client("sagemaker")
    prefix = f"{os.environ['UPDRAFT_PROJECT']}-{os.environ['UPDRAFT_ENVIRONMENT']}-"
    wanted = _of_run(tags)
    found = []
    for kind in USED:
        words = KINDS[kind]
        pages = client.get_paginator(words.list).paginate(StatusEquals="InProgress", NameContains=prefix)
        for page in pages:
            for summary in page[words.summaries]:
                # Another environment's name may hold this one's; its jobs' tags are not ours to read.
                if not summary[words.name_key].startswith(prefix):
                    continue
                if _of_run(client.list_tags(ResourceArn=summary[words.arn_key])["Tags"]) == wanted:
                    found.append(Job(client, kind, summary[words.name_key]))
    return found


def _of_run(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags if tag["Key"] in OF_RUN}


def _delete(bucket: str, prefix: str) -> int:
    client, count = boto3.client("s3"), 0
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        for start in range(0, len(keys), MOST_AT_ONCE):
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys[start : start + MOST_AT_ONCE]})
        count += len(keys)
    return count
