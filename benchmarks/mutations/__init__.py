"""Seeded misconfigurations: what fails on AWS with each, and which check notices it before a deployment."""

from benchmarks.mutations import access, containers, data  # noqa: F401 - they register themselves
from benchmarks.mutations.draft import MUTATIONS

__all__ = ["MUTATIONS"]
