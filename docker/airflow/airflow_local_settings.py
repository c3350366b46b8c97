"""Imported by every process of Airflow while it reads its settings."""

from runtime import run_parameters

# Airflow takes over every other name that stands here.
__all__: list[str] = []

run_parameters.watch()
