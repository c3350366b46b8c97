"""SageMaker jobs that belong to their task; docs/jobs.md tells who adopts, stops or renews a job, and when.

`operator` and `trigger` need Airflow; the other modules are shared with the command line, which has none.
"""
