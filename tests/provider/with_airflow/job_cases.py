"""Processing, training, tuning and transform jobs: the operators that start them and the sensors that wait for them."""

from __future__ import annotations

import io
import json
import tarfile

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerProcessingOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import (
    SageMakerProcessingSensor,
    SageMakerTrainingSensor,
    SageMakerTransformSensor,
    SageMakerTuningSensor,
)

from tests.provider.names import BUCKET, NEIGHBOURS_IMAGE, ROLE_ARN, ROLE_NAME, SPLIT_IMAGE
from tests.provider.with_airflow.harness import (
    ANSWERS,
    ASK,
    INSTANCE,
    LEARN,
    STOPPING,
    Gate,
    Record,
    answered,
    channel,
    client,
    fails,
    get,
    logged,
    name_of,
    put,
    register,
    rows_of,
    run,
    sense,
    training_config,
)

WAIT: Record = {"check_interval": 1}
MODES = ("sync", "deferrable")


def processing_config(name: str, gate: Gate) -> Record:
    rows = "".join(f"{number % 3},{number},{10 - number}\n" for number in range(10))
    return {
        "ProcessingJobName": name,
        "ProcessingInputs": [
            {
                "InputName": "input",
                "AppManaged": False,
                "S3Input": {
                    "S3Uri": put(f"{name}/raw/input.csv", f"class,x,y\n{rows}"),
                    "LocalPath": "/opt/ml/processing/input",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                    "S3CompressionType": "None",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "output",
                    "AppManaged": False,
                    "S3Output": {
                        "S3Uri": f"s3://{BUCKET}/{name}/split",
                        "LocalPath": "/opt/ml/processing/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "ProcessingResources": {"ClusterConfig": dict(INSTANCE)},
        "StoppingCondition": dict(STOPPING),
        "AppSpecification": {"ImageUri": SPLIT_IMAGE},
        "Environment": {"UNTIL": gate.name},
        "RoleArn": ROLE_NAME,
    }


def was_split(name: str) -> None:
    """The job has ended well, and its output is in S3."""
    job = client().describe_processing_job(ProcessingJobName=name)
    assert job["ProcessingJobStatus"] == "Completed", job
    assert job["RoleArn"] == ROLE_ARN
    assert [len(row) for row in rows_of(f"s3://{BUCKET}/{name}/split/train.csv")] == [3] * 7
    assert [len(row) for row in rows_of(f"s3://{BUCKET}/{name}/split/test.csv")] == [2] * 3


@register.case(SageMakerProcessingOperator, *MODES)
def processing_splits_its_input_and_hands_its_summary_on(mode: str) -> None:
    name, gate = name_of(f"processing-{mode}"), Gate()
    summary = {"output_name": "output", "file_name": "summary.json", "result_name": "Summary"}
    result = run(
        SageMakerProcessingOperator,
        mode,
        gate=gate,
        config=processing_config(name, gate),
        output_files_to_xcom=[summary],
        **WAIT,
    )
    was_split(name)
    assert result["Processing"]["ProcessingJobStatus"] == "Completed"
    assert result["OutputFiles"] == {"Summary": {"train": 7, "test": 3}}


@register.together(SageMakerProcessingSensor, "poke", "reschedule")
def processing_sensor_waits_for_the_split(_mode: str) -> None:
    name, gate = name_of("processing-sensed"), Gate()
    client().create_processing_job(**processing_config(name, gate) | {"RoleArn": ROLE_ARN})
    sense(SageMakerProcessingSensor, gate, job_name=name)
    was_split(name)


def has_learnt(name: str) -> None:
    """The training has ended well, and its model holds what it was given."""
    job = client().describe_training_job(TrainingJobName=name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed"), job
    assert job["BillableTimeInSeconds"] >= 1
    with tarfile.open(fileobj=io.BytesIO(get(job["ModelArtifacts"]["S3ModelArtifacts"]))) as files:
        content = files.extractfile("model.json")
        assert content is not None
        assert len(json.load(content)["rows"]) == LEARN.count("\n")


def trained(mode: str, name: str) -> Record:
    """What the operator returns of a training."""
    gate = Gate()
    config = training_config(name, gate)
    return dict(run(SageMakerTrainingOperator, mode, gate=gate, config=config, **WAIT))


@register.case(SageMakerTrainingOperator, *MODES)
def training_leaves_a_model(mode: str) -> None:
    name = name_of(f"training-{mode}")
    result = trained(mode, name)
    has_learnt(name)
    assert result["Training"]["ModelArtifacts"]["S3ModelArtifacts"].endswith(f"{name}/output/model.tar.gz")
    if mode == "sync":
        # The deferrable operator leaves the job's lines where they are.
        assert logged(f"{name} keeps 8 rows"), "the job's lines are not in the task's log"
    if mode == "deferrable":
        # A name that is taken gets another one.
        other = trained(mode, name)["Training"]["TrainingJobName"]
        assert other.startswith(f"{name}-"), other
        has_learnt(other)


@register.case(SageMakerTrainingOperator, *MODES)
def training_that_fails_fails_its_task_with_the_reason(mode: str) -> None:
    name = name_of(f"training-fails-{mode}")
    config = training_config(name, Gate(), fail="there is nothing to learn")
    fails("there is nothing to learn", lambda: run(SageMakerTrainingOperator, mode, config=config, **WAIT))
    assert client().describe_training_job(TrainingJobName=name)["TrainingJobStatus"] == "Failed"


@register.together(SageMakerTrainingSensor, "poke", "reschedule")
def training_sensor_waits_for_the_model(_mode: str) -> None:
    name, gate = name_of("training-sensed"), Gate()
    client().create_training_job(**training_config(name, gate) | {"RoleArn": ROLE_ARN})
    sense(SageMakerTrainingSensor, gate, job_name=name)
    has_learnt(name)
    assert logged(f"{name} keeps 8 rows"), "the job's lines are not in the task's log"


@register.together(SageMakerTrainingSensor, "poke", "reschedule")
def training_sensor_fails_with_the_reason_of_its_training(_mode: str) -> None:
    name = name_of("training-fails-sensed")
    config = training_config(name, Gate(), fail="there is nothing to learn") | {"RoleArn": ROLE_ARN}
    client().create_training_job(**config)
    fails("there is nothing to learn", lambda: sense(SageMakerTrainingSensor, Gate(), job_name=name))


def tuning_config(name: str, gate: Gate) -> Record:
    definition = training_config("unused", gate)
    metric = {"Name": "test:accuracy", "Regex": "test:accuracy=([0-9.]+)"}
    definition["AlgorithmSpecification"]["MetricDefinitions"] = [metric]
    definition["StaticHyperParameters"] = {"sample_size": "600", "until": gate.name}
    definition["InputDataConfig"].append(channel("test", LEARN))
    for key in ("TrainingJobName", "HyperParameters"):
        del definition[key]
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"MetricName": "test:accuracy", "Type": "Maximize"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "CategoricalParameterRanges": [],
                "IntegerParameterRanges": [{"Name": "k", "MinValue": "1", "MaxValue": "8"}],
            },
        },
        "TrainingJobDefinition": definition,
    }


def was_tuned(name: str) -> None:
    """Every training of the tuning job has run, and the best of them is known."""
    job = client().describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    assert job["HyperParameterTuningJobStatus"] == "Completed", job
    assert job["TrainingJobStatusCounters"]["Completed"] == 2
    trials = client().list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    values = [
        trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
        for trial in trials["TrainingJobSummaries"]
    ]
    best = job["BestTrainingJob"]
    assert best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == max(values)
    assert 1 <= int(best["TunedHyperParameters"]["k"]) <= 8


@register.case(SageMakerTuningOperator, *MODES)
def tuning_finds_the_best_of_its_trainings(mode: str) -> None:
    name, gate = name_of(f"tuning-{mode[:4]}"), Gate()
    config = tuning_config(name, gate)
    result = run(SageMakerTuningOperator, mode, gate=gate, config=config, **WAIT)
    was_tuned(name)
    assert result["Tuning"]["BestTrainingJob"]["TrainingJobName"].startswith(name)


@register.together(SageMakerTuningSensor, "poke", "reschedule")
def tuning_sensor_waits_for_the_best(_mode: str) -> None:
    name, gate = name_of("tuning-sensed"), Gate()
    config = tuning_config(name, gate)
    config["TrainingJobDefinition"]["RoleArn"] = ROLE_ARN
    client().create_hyper_parameter_tuning_job(**config)
    sense(SageMakerTuningSensor, gate, job_name=name)
    was_tuned(name)


def model_config(name: str, gate: Gate | None = None) -> Record:
    """A model of the image, with an archive that was made here; it answers once its gate is open."""
    rows = [[float(value) for value in line.split(",")] for line in LEARN.splitlines()]
    content = json.dumps({"k": 3, "rows": rows}).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        info = tarfile.TarInfo("model.json")
        info.size = len(content)
        files.addfile(info, io.BytesIO(content))
    container: Record = {
        "Mode": "SingleModel",
        "Image": NEIGHBOURS_IMAGE,
        "ModelDataUrl": put(f"{name}/model.tar.gz", buffer.getvalue()),
    }
    if gate:
        container["Environment"] = {"UNTIL": gate.name}
    return {"ModelName": name, "ExecutionRoleArn": ROLE_NAME, "PrimaryContainer": container}


def transform_config(name: str) -> Record:
    return {
        "TransformJobName": name,
        "ModelName": name,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": put(f"{name}/ask.csv", ASK)}},
            "SplitType": "Line",
            "ContentType": "text/csv",
        },
        "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/{name}/out"},
        "TransformResources": {"InstanceCount": 1, "InstanceType": "ml.m5.large"},
    }


def was_answered(name: str) -> None:
    """The transform has ended well, and every row has its answer."""
    job = client().describe_transform_job(TransformJobName=name)
    assert job["TransformJobStatus"] == "Completed", job
    assert answered(get(f"s3://{BUCKET}/{name}/out/ask.csv.out")) == ANSWERS


@register.case(SageMakerTransformOperator, *MODES)
def transform_answers_every_row(mode: str) -> None:
    name, gate = name_of(f"transform-{mode}"), Gate()
    config = {"Model": model_config(name, gate), "Transform": transform_config(name)}
    result = run(SageMakerTransformOperator, mode, gate=gate, config=config, **WAIT)
    was_answered(name)
    assert result["Model"]["ModelName"] == result["Transform"]["ModelName"] == name
    assert client().describe_model(ModelName=name)["ExecutionRoleArn"] == ROLE_ARN


@register.together(SageMakerTransformSensor, "poke", "reschedule")
def transform_sensor_waits_for_the_answers(_mode: str) -> None:
    name, gate = name_of("transform-sensed"), Gate()
    client().create_model(**model_config(name, gate) | {"ExecutionRoleArn": ROLE_ARN})
    client().create_transform_job(**transform_config(name))
    sense(SageMakerTransformSensor, gate, job_name=name)
    was_answered(name)
