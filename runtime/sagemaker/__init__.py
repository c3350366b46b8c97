"""SageMaker jobs that belong to their task; docs/jobs.md tells who adopts, stops or renews a job, and when."""

from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.trigger import SageMakerJobTrigger

__all__ = ["SageMakerJobOperator", "SageMakerJobTrigger"]
