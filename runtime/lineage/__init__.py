"""Lineage: every DAG run and every try of a task is a run on the MLflow server (docs/lineage.md).

`listener` writes what happens to a `spool` on the container's own disk and returns at once. An `exporter`, one process
beside the scheduler and each worker, hands it to MLflow (`recorder`, `tracking`) and measures the assets (`probes`).
"""
