"""What a request may say: AWS's own limits from botocore's model, and what this host really does.

A setting that would be taken and then ignored would be a lie; it is refused instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

Record = dict[str, Any]
STRATEGIES = ("Random",)
# kind: {path: values that are honoured; a path that is absent is fine}. `*` goes through a list.
HONOURED: dict[str, dict[str, tuple[Any, ...]]] = {
    "TrainingJob": {
        "AlgorithmSpecification.TrainingInputMode": ("File", "FastFile"),
        "ResourceConfig.InstanceCount": (1,),
        "ResourceConfig.InstanceGroups": (),
        "ResourceConfig.InstancePreferences.*.InstanceCount": (1,),
        "ResourceConfig.InstancePreferences.*.TrainingPlanArns": (),
        "InputDataConfig.*.InputMode": ("File", "FastFile"),
        "InputDataConfig.*.CompressionType": ("None",),
        "InputDataConfig.*.RecordWrapperType": ("None",),
        "InputDataConfig.*.DataSource.FileSystemDataSource": (),
        "InputDataConfig.*.DataSource.S3DataSource.S3DataType": ("S3Prefix",),
        "OutputDataConfig.CompressionType": ("GZIP",),
        "ExperimentConfig": (),
    },
    "ProcessingJob": {
        "ProcessingResources.ClusterConfig.InstanceCount": (1,),
        "ProcessingResources.ClusterConfig.InstancePreferences.*.InstanceCount": (1,),
        "ProcessingInputs.*.DatasetDefinition": (),
        "ProcessingInputs.*.S3Input.S3DataType": ("S3Prefix",),
        "ProcessingInputs.*.S3Input.S3InputMode": ("File",),
        "ProcessingInputs.*.S3Input.S3CompressionType": ("None",),
        "ProcessingOutputConfig.Outputs.*.FeatureStoreOutput": (),
        "ProcessingOutputConfig.Outputs.*.S3Output.S3UploadMode": ("EndOfJob",),
        "ExperimentConfig": (),
    },
    "TransformJob": {
        "TransformResources.InstanceCount": (1,),
        "TransformInput.SplitType": ("None", "Line"),
        "TransformInput.CompressionType": ("None",),
        "TransformInput.DataSource.S3DataSource.S3DataType": ("S3Prefix",),
        "DataProcessing": (),
        "DataCaptureConfig": (),
        "ExperimentConfig": (),
    },
    "HyperParameterTuningJob": {
        "TrainingJobDefinitions": (),
        "WarmStartConfig": (),
        "Autotune": (),
        "HyperParameterTuningJobConfig.Strategy": STRATEGIES,
        "HyperParameterTuningJobConfig.TrainingJobEarlyStoppingType": ("Off",),
        "HyperParameterTuningJobConfig.TuningJobCompletionCriteria": (),
        "HyperParameterTuningJobConfig.ResourceLimits.MaxRuntimeInSeconds": (),
        "TrainingJobDefinition.RetryStrategy": (),
        "TrainingJobDefinition.HyperParameterRanges": (),
        "TrainingJobDefinition.HyperParameterTuningResourceConfig": (),
    },
    "Model": {
        "Containers": (),
        "InferenceExecutionConfig": (),
        "PrimaryContainer.Mode": ("SingleModel",),
        "PrimaryContainer.ModelDataSource": (),
        "PrimaryContainer.ModelPackageName": (),
        "PrimaryContainer.InferenceSpecificationName": (),
    },
    "EndpointConfig": {
        "DataCaptureConfig": (),
        "AsyncInferenceConfig": (),
        "ExplainerConfig": (),
        "ShadowProductionVariants": (),
        "ExecutionRoleArn": (),
        "VpcConfig": (),
        "EnableNetworkIsolation": (False,),
        "MetricsConfig": (),
        "ProductionVariants.*.InitialInstanceCount": (1,),
        "ProductionVariants.*.InstancePools": (),
        "ProductionVariants.*.AcceleratorType": (),
        "ProductionVariants.*.CoreDumpConfig": (),
        "ProductionVariants.*.ServerlessConfig": (),
        "ProductionVariants.*.EnableSSMAccess": (False,),
        "ProductionVariants.*.ManagedInstanceScaling": (),
        "ProductionVariants.*.RoutingConfig": (),
        "ProductionVariants.*.CapacityReservationConfig": (),
    },
    "Endpoint": {
        "DeploymentConfig": (),
        "RetainAllVariantProperties": (False,),
        "ExcludeRetainedVariantProperties": (),
        "RetainDeploymentConfig": (False,),
    },
    "DesiredWeightAndCapacity": {"DesiredInstanceCount": (1,), "ServerlessUpdateConfig": ()},
}


def mistakes(kind: str, request: Record) -> Iterator[str]:
    """What this host can't honour in a request that AWS's model allows."""
    for path, honoured in HONOURED.get(kind, {}).items():
        for where, value in _values(request, path.split("."), ""):
            if value not in honoured:
                allowed = f"it has {', '.join(map(str, honoured))}" if honoured else "leave it out"
                yield f"{where} {value if not isinstance(value, dict | list) else ''}".rstrip() + (
                    f" is not available in the local account; {allowed}"
                )
    if kind == "HyperParameterTuningJob":
        yield from _tuning_mistakes(request)
    if kind == "TrainingJob":
        yield from _spot_mistakes(request)
        if "ResourceConfig" in request:
            spot = bool(request.get("EnableManagedSpotTraining"))
            yield from _instance_mistakes(request["ResourceConfig"], spot=spot)
    if kind == "ProcessingJob":
        yield from _instance_mistakes(request["ProcessingResources"]["ClusterConfig"], spot=False)
    if kind == "Model" and "Image" not in request.get("PrimaryContainer", {}):
        yield "PrimaryContainer.Image is required"


def _instance_mistakes(cluster: Record, *, spot: bool) -> Iterator[str]:
    """The rules of https://docs.aws.amazon.com/sagemaker/latest/dg/train-instance-preferences.html"""
    preferences = cluster.get("InstancePreferences")
    if spot and cluster.get("KeepAlivePeriodInSeconds"):
        yield "KeepAlivePeriodInSeconds: not with EnableManagedSpotTraining"
    if preferences is None:
        for key in ("InstanceType", "InstanceCount"):
            if key not in cluster:
                yield f"{key} is required without InstancePreferences"
        return
    if "InstanceType" in cluster:
        yield "InstanceType and InstancePreferences: only one of them is allowed"
    if spot:
        yield "InstancePreferences: not with EnableManagedSpotTraining"
    if "KeepAlivePeriodInSeconds" in cluster:
        yield "KeepAlivePeriodInSeconds with InstancePreferences is not available in the local account"
    types = [each["InstanceType"] for each in preferences]
    if len(set(types)) < len(types):
        yield f"InstancePreferences: each type once, came {', '.join(types)}"
    counts = ["InstanceCount" in each for each in preferences]
    if any(counts) != all(counts) or any(counts) == ("InstanceCount" in cluster):
        yield "InstanceCount: either one for all preferences, or one in each of them"


def _spot_mistakes(request: Record) -> Iterator[str]:
    condition = request.get("StoppingCondition", {})
    longest, run = condition.get("MaxWaitTimeInSeconds"), condition.get("MaxRuntimeInSeconds", 86_400)
    if not request.get("EnableManagedSpotTraining"):
        if longest is not None:
            yield "MaxWaitTimeInSeconds: only with EnableManagedSpotTraining"
    elif longest is None:
        yield "MaxWaitTimeInSeconds above 0 is required when EnableManagedSpotTraining is true"
    elif longest < run:
        yield f"MaxWaitTimeInSeconds {longest} must be at least MaxRuntimeInSeconds {run}"


def _tuning_mistakes(request: Record) -> Iterator[str]:
    config = request["HyperParameterTuningJobConfig"]
    definition = request.get("TrainingJobDefinition")
    if definition is None or "HyperParameterTuningJobObjective" not in config:
        yield "TrainingJobDefinition and HyperParameterTuningJobObjective are required"
    else:
        yield from mistakes("TrainingJob", definition)
        if "ResourceConfig" not in definition:
            yield "TrainingJobDefinition.ResourceConfig is required"
    if "MaxNumberOfTrainingJobs" not in config["ResourceLimits"]:
        yield "ResourceLimits.MaxNumberOfTrainingJobs is required"
    ranges = config.get("ParameterRanges", {})
    if ranges.get("AutoParameters"):
        yield "ParameterRanges.AutoParameters is not available in the local account; leave it out"
    numeric = [*ranges.get("IntegerParameterRanges", []), *ranges.get("ContinuousParameterRanges", [])]
    if not numeric and not ranges.get("CategoricalParameterRanges"):
        yield "ParameterRanges: at least one range is required"
    for item in numeric:
        yield from _range_mistakes(item)


def _range_mistakes(item: Record) -> Iterator[str]:
    name, scaling = item["Name"], item.get("ScalingType", "Auto")
    try:
        low, high = float(item["MinValue"]), float(item["MaxValue"])
    except ValueError:
        yield f"range {name}: {item['MinValue']} to {item['MaxValue']} are not two numbers"
        return
    if not low < high:
        yield f"range {name}: MinValue {item['MinValue']} is not less than MaxValue {item['MaxValue']}"
    if scaling == "Logarithmic" and low <= 0:
        yield f"range {name}: MinValue {item['MinValue']} must be above 0 for Logarithmic scaling"
    if scaling == "ReverseLogarithmic":
        yield f"range {name}: ReverseLogarithmic is not available in the local account; it has Auto, Linear, Logarithmic"


def _values(value: Any, path: list[str], where: str) -> Iterator[tuple[str, Any]]:
    """What lies at a path, with the path as it came; nothing where a part is absent."""
    if not path:
        yield where, value
    elif path[0] == "*":
        for index, item in enumerate(value):
            yield from _values(item, path[1:], f"{where}[{index}]")
    elif path[0] in value:
        yield from _values(value[path[0]], path[1:], f"{where}.{path[0]}".lstrip("."))


def constraint_mistakes(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """What botocore's model says of patterns, enumerations, lengths and limits, and its validator doesn't check."""
    longest = shape.metadata.get("max")
    if isinstance(shape, StructureShape):
        for name, item in value.items():
            yield from constraint_mistakes(shape.members[name], item, f"{path}.{name}".lstrip("."))
    elif isinstance(shape, ListShape):
        if longest is not None and len(value) > longest:
            yield f"Value at '{path}' failed to satisfy constraint: Member must have length less than or equal to {longest}"
        for index, item in enumerate(value):
            yield from constraint_mistakes(shape.member, item, f"{path}[{index}]")
    elif isinstance(shape, MapShape):
        if longest is not None and len(value) > longest:
            yield f"Value at '{path}' failed to satisfy constraint: Map must have length less than or equal to {longest}"
        for key, item in value.items():
            yield from constraint_mistakes(shape.key, key, f"{path}[{key}]")
            yield from constraint_mistakes(shape.value, item, f"{path}[{key}]")
    elif shape.type_name == "string":
        yield from _text_mistakes(shape, value, path)
    elif (
        shape.type_name in ("integer", "long", "float", "double") and longest is not None and value > longest
    ):
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have value less than or equal to {longest}"


def _text_mistakes(shape: Shape, value: str, path: str) -> Iterator[str]:
    longest, pattern = shape.metadata.get("max"), shape.metadata.get("pattern")
    allowed = getattr(shape, "enum", [])
    if allowed and value not in allowed:
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy enum value set: [{', '.join(allowed)}]"
    if longest is not None and len(value) > longest:
        yield f"Value at '{path}' failed to satisfy constraint: Member must have length less than or equal to {longest}"
    if pattern and not _matches(pattern, value):
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy regular expression pattern: {pattern}"


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        # A few of AWS's patterns use Java's classes, which Python doesn't know.
        return True
