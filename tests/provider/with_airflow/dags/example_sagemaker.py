"""The provider's `example_sagemaker`: from raw rows over jobs of every kind to a registered model, and all of it away.

docs/provider.md says what differs from the published one.
"""

from __future__ import annotations

import json
from datetime import datetime

import boto3
from airflow.providers.amazon.aws.operators.s3 import (
    S3CreateBucketOperator,
    S3CreateObjectOperator,
    S3DeleteBucketOperator,
)
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerDeleteModelOperator,
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerRegisterModelVersionOperator,
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
from airflow.sdk import DAG, TriggerRule, chain, task

from tests.provider.names import NEIGHBOURS_IMAGE, ROLE_ARN, SPLIT_IMAGE

NAME = "example"
BUCKET = f"{NAME}-sagemaker-example"
MODEL, TRAINING, TRANSFORM, TUNING = (
    f"{NAME}-{kind}" for kind in ("knn-model", "train", "transform", "tune")
)
GROUP = f"{NAME}-group"
ROWS = 600
DATA, RESULTS, PREDICTIONS = (
    f"{NAME}/{folder}" for folder in ("processed-input-data", "results", "transform")
)
WEIGHTS = f"s3://{BUCKET}/{RESULTS}/{TRAINING}/output/model.tar.gz"
METRIC = "test:accuracy"

RESOURCES = {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
STOPPING = {"MaxRuntimeInSeconds": 600}
PROCESSING_CONFIG = {
    "ProcessingJobName": f"{NAME}-processing",
    "ProcessingInputs": [
        {
            "InputName": "input",
            "AppManaged": False,
            "S3Input": {
                "S3Uri": f"s3://{BUCKET}/{NAME}/preprocessing/input.csv",
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
                "S3Output": {
                    "S3Uri": f"s3://{BUCKET}/{DATA}",
                    "LocalPath": "/opt/ml/processing/output",
                    "S3UploadMode": "EndOfJob",
                },
                "AppManaged": False,
            }
        ]
    },
    "ProcessingResources": {"ClusterConfig": RESOURCES},
    "StoppingCondition": STOPPING,
    "AppSpecification": {"ImageUri": SPLIT_IMAGE},
    "RoleArn": ROLE_ARN,
}
LEARN_FROM = {
    "CompressionType": "None",
    "ContentType": "text/csv",
    "DataSource": {
        "S3DataSource": {
            "S3DataDistributionType": "FullyReplicated",
            "S3DataType": "S3Prefix",
            "S3Uri": f"s3://{BUCKET}/{DATA}/train.csv",
        }
    },
}
CLASSIFIER = {"predictor_type": "classifier", "feature_dim": "2"}
TRAINING_CONFIG = {
    "AlgorithmSpecification": {"TrainingImage": NEIGHBOURS_IMAGE, "TrainingInputMode": "File"},
    "HyperParameters": CLASSIFIER | {"k": "3", "sample_size": str(ROWS)},
    "InputDataConfig": [{"ChannelName": "train", **LEARN_FROM}],
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/{RESULTS}/"},
    "ResourceConfig": RESOURCES,
    "RoleArn": ROLE_ARN,
    "StoppingCondition": STOPPING,
    "TrainingJobName": TRAINING,
}
MODEL_CONFIG = {
    "ExecutionRoleArn": ROLE_ARN,
    "ModelName": MODEL,
    "PrimaryContainer": {"Mode": "SingleModel", "Image": NEIGHBOURS_IMAGE, "ModelDataUrl": WEIGHTS},
}
TUNING_CONFIG = {
    "HyperParameterTuningJobName": TUNING,
    "HyperParameterTuningJobConfig": {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"MetricName": METRIC, "Type": "Maximize"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {
            "CategoricalParameterRanges": [],
            "IntegerParameterRanges": [
                {"Name": name, "MinValue": "1", "MaxValue": str(ROWS)} for name in ("k", "sample_size")
            ],
        },
    },
    "TrainingJobDefinition": {
        "StaticHyperParameters": CLASSIFIER,
        "AlgorithmSpecification": {
            "TrainingImage": NEIGHBOURS_IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": METRIC, "Regex": f"{METRIC}=([0-9.]+)"}],
        },
        "InputDataConfig": [{"ChannelName": name, **LEARN_FROM} for name in ("train", "test")],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/{RESULTS}"},
        "ResourceConfig": RESOURCES,
        "RoleArn": ROLE_ARN,
        "StoppingCondition": STOPPING,
    },
}
TRANSFORM_CONFIG = {
    "TransformJobName": TRANSFORM,
    "TransformInput": {
        "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/{DATA}/test.csv"}},
        "SplitType": "Line",
        "ContentType": "text/csv",
    },
    "TransformOutput": {"S3OutputPath": f"s3://{BUCKET}/{PREDICTIONS}"},
    "TransformResources": {"InstanceCount": 1, "InstanceType": "ml.m5.large"},
    "ModelName": MODEL,
}


def rows() -> str:
    """A hundred classes, each in six places."""
    return "class,x,y\n" + "".join(f"{number % 100},{number},{ROWS - number}\n" for number in range(ROWS))


@task
def look_at_the_results() -> None:
    """Every row that was held back has been answered, and the tuning knows its best training."""
    s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
    body = s3.get_object(Bucket=BUCKET, Key=f"{PREDICTIONS}/test.csv.out")["Body"].read()
    answers = [each for line in body.splitlines() for each in json.loads(line)["predictions"]]
    assert len(answers) == ROWS - int(ROWS * 0.7), len(answers)
    tuned = sagemaker.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=TUNING)
    assert tuned["TrainingJobStatusCounters"]["Completed"] == 2
    best = tuned["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]
    assert 0 < best["Value"] <= 1, best
    registered = sagemaker.list_model_packages(ModelPackageGroupName=GROUP)["ModelPackageSummaryList"]
    assert [each["ModelPackageVersion"] for each in registered] == [1]


@task(trigger_rule=TriggerRule.ALL_DONE)
def delete_model_group(arn: str) -> None:
    """The group and the one version in it."""
    sagemaker = boto3.client("sagemaker")
    sagemaker.delete_model_package(ModelPackageName=arn)
    sagemaker.delete_model_package_group(ModelPackageGroupName=GROUP)


@task(trigger_rule=TriggerRule.ALL_DONE)
def delete_log_streams() -> None:
    """The streams of these jobs, in the groups of their kinds."""
    logs = boto3.client("logs")
    for kind in ("ProcessingJobs", "TrainingJobs", "TransformJobs"):
        group = f"/aws/sagemaker/{kind}"
        streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{NAME}-")
        assert streams["logStreams"], f"{group} has nothing of {NAME}"
        for stream in streams["logStreams"]:
            logs.delete_log_stream(logGroupName=group, logStreamName=stream["logStreamName"])


with DAG(dag_id="example_sagemaker", schedule=None, start_date=datetime(2021, 1, 1), catchup=False):
    create_bucket = S3CreateBucketOperator(task_id="create_bucket", bucket_name=BUCKET)
    upload_dataset = S3CreateObjectOperator(
        task_id="upload_dataset",
        s3_bucket=BUCKET,
        s3_key=f"{NAME}/preprocessing/input.csv",
        data=rows(),
        replace=True,
    )
    # As in the published one, the operators don't wait, so that the sensors do.
    preprocess_raw_data = SageMakerProcessingOperator(
        task_id="preprocess_raw_data", config=PROCESSING_CONFIG, wait_for_completion=False
    )
    await_preprocess = SageMakerProcessingSensor(
        task_id="await_preprocess", job_name=f"{NAME}-processing", poke_interval=1
    )
    train_model = SageMakerTrainingOperator(
        task_id="train_model", config=TRAINING_CONFIG, wait_for_completion=False
    )
    await_training = SageMakerTrainingSensor(task_id="await_training", job_name=TRAINING, poke_interval=1)
    create_model = SageMakerModelOperator(task_id="create_model", config=MODEL_CONFIG)
    register_model = SageMakerRegisterModelVersionOperator(
        task_id="register_model",
        image_uri=NEIGHBOURS_IMAGE,
        model_url=WEIGHTS,
        package_group_name=GROUP,
    )
    tune_model = SageMakerTuningOperator(
        task_id="tune_model", config=TUNING_CONFIG, wait_for_completion=False
    )
    await_tuning = SageMakerTuningSensor(task_id="await_tuning", job_name=TUNING, poke_interval=1)
    test_model = SageMakerTransformOperator(
        task_id="test_model", config=TRANSFORM_CONFIG, wait_for_completion=False
    )
    await_transform = SageMakerTransformSensor(task_id="await_transform", job_name=TRANSFORM, poke_interval=1)
    delete_model = SageMakerDeleteModelOperator(
        task_id="delete_model", config={"ModelName": MODEL}, trigger_rule=TriggerRule.ALL_DONE
    )
    delete_bucket = S3DeleteBucketOperator(
        task_id="delete_bucket",
        trigger_rule=TriggerRule.ALL_DONE,
        bucket_name=BUCKET,
        force_delete=True,
    )
    chain(
        create_bucket,
        upload_dataset,
        preprocess_raw_data,
        await_preprocess,
        train_model,
        await_training,
        create_model,
        register_model,
        tune_model,
        await_tuning,
        test_model,
        await_transform,
        look_at_the_results(),
        delete_model_group(register_model.output),
        delete_model,
        delete_bucket,
        delete_log_streams(),
    )
