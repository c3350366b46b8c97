"""What lineage calls things on the MLflow server; the command line reads them by the same names."""

from __future__ import annotations

import hashlib
from typing import Any

# On the runs that lineage makes: which DAG run, or which try of a task, a run stands for.
KEY = "lineage_key"
# On these and on every run that a task makes with MLflow's own client.
DAG_RUN_KEY = "dag_run_key"
PARENT = "mlflow.parentRunId"
RUN_NAME = "mlflow.runName"
# A model that a task registered is found by its DAG run, too.
MODEL_TAGS = ("model_package_arn", "model_name", "model_version")
JOB_TAGS = ("sagemaker_job_name", "sagemaker_job_arn", "sagemaker_job_kind")
# MLflow's statuses by Airflow's states; what is not named goes on.
STATUSES = {
    "success": "FINISHED",
    "skipped": "FINISHED",
    "failed": "FAILED",
    "up_for_retry": "FAILED",
    "upstream_failed": "FAILED",
    "removed": "KILLED",
}
KEY_CHARACTERS = 32


def dag_run_key(dag_id: str, run_id: str) -> str:
    """The same for a DAG run in every process: letters and digits only, as a search filter needs them."""
    return _digest(dag_id, run_id)


def task_key(event: dict[str, Any]) -> str:
    """The same for one try of a task instance in every process."""
    parts = (event[name] for name in ("dag_id", "run_id", "task_id", "map_index", "try_number"))
    return _digest(*map(str, parts))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_CHARACTERS]
