"""The provider's `example_sagemaker_endpoint`: trains, deploys, asks the endpoint, and takes it all away.

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
    SageMakerEndpointConfigOperator,
    SageMakerEndpointOperator,
    SageMakerModelOperator,
    SageMakerTrainingOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import SageMakerEndpointSensor
from airflow.sdk import DAG, TriggerRule, chain, task

from tests.provider.names import NEIGHBOURS_IMAGE, ROLE_ARN

NAME = "deployed-example"
BUCKET = f"{NAME}-sagemaker"
MODEL, TRAINING, CONFIG, ENDPOINT = (
    f"{NAME}-{kind}" for kind in ("knn-model", "train", "endpoint-config", "endpoint")
)
RESULTS = f"{NAME}/results"
LEARN_KEY = f"{NAME}/input-data/train.csv"
LEARN = "0,4.9,2.5,4.5,1.7\n1,7.0,3.2,4.7,1.4\n0,7.3,2.9,6.3,1.8\n2,5.1,3.5,1.4,0.2\n"
ASK = "6.9,3.2,4.5,1.5"

TRAINING_CONFIG = {
    "TrainingJobName": TRAINING,
    "RoleArn": ROLE_ARN,
    "AlgorithmSpecification": {"TrainingImage": NEIGHBOURS_IMAGE, "TrainingInputMode": "File"},
    "HyperParameters": {
        "predictor_type": "classifier",
        "feature_dim": "4",
        "k": "1",
        "sample_size": str(LEARN.count("\n")),
    },
    "InputDataConfig": [
        {
            "ChannelName": "train",
            "CompressionType": "None",
            "ContentType": "text/csv",
            "DataSource": {
                "S3DataSource": {
                    "S3DataDistributionType": "FullyReplicated",
                    "S3DataType": "S3Prefix",
                    "S3Uri": f"s3://{BUCKET}/{LEARN_KEY}",
                }
            },
        }
    ],
    "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/{RESULTS}/"},
    "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 360},
}
MODEL_CONFIG = {
    "ModelName": MODEL,
    "ExecutionRoleArn": ROLE_ARN,
    "PrimaryContainer": {
        "Mode": "SingleModel",
        "Image": NEIGHBOURS_IMAGE,
        "ModelDataUrl": f"s3://{BUCKET}/{RESULTS}/{TRAINING}/output/model.tar.gz",
    },
}
ENDPOINT_CONFIG = {
    "EndpointConfigName": CONFIG,
    "ProductionVariants": [
        {
            "VariantName": f"{NAME}-demo",
            "ModelName": MODEL,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
    ],
}


@task
def call_endpoint() -> None:
    """The nearest row that was learnt has the class 1."""
    answer = boto3.client("sagemaker-runtime").invoke_endpoint(
        EndpointName=ENDPOINT, ContentType="text/csv", Body=ASK
    )
    predictions = json.loads(answer["Body"].read())["predictions"]
    assert predictions == [{"predicted_label": 1.0}], predictions


@task(trigger_rule=TriggerRule.ALL_DONE)
def delete_endpoint_config() -> None:
    """The endpoint goes on without it."""
    boto3.client("sagemaker").delete_endpoint_config(EndpointConfigName=CONFIG)


@task(trigger_rule=TriggerRule.ALL_DONE)
def delete_endpoint() -> None:
    """Its process ends with it."""
    boto3.client("sagemaker").delete_endpoint(EndpointName=ENDPOINT)


@task(trigger_rule=TriggerRule.ALL_DONE)
def archive_logs() -> None:
    """What the endpoint has logged is kept for a day."""
    group = f"/aws/sagemaker/Endpoints/{ENDPOINT}"
    logs = boto3.client("logs")
    logs.put_retention_policy(logGroupName=group, retentionInDays=1)
    [found] = logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert found["retentionInDays"] == 1


with DAG(dag_id="example_sagemaker_endpoint", schedule=None, start_date=datetime(2021, 1, 1), catchup=False):
    create_bucket = S3CreateBucketOperator(task_id="create_bucket", bucket_name=BUCKET)
    upload_data = S3CreateObjectOperator(
        task_id="upload_data", s3_bucket=BUCKET, s3_key=LEARN_KEY, data=LEARN
    )
    train_model = SageMakerTrainingOperator(task_id="train_model", config=TRAINING_CONFIG)
    create_model = SageMakerModelOperator(task_id="create_model", config=MODEL_CONFIG)
    configure_endpoint = SageMakerEndpointConfigOperator(task_id="configure_endpoint", config=ENDPOINT_CONFIG)
    # As in the published one, the operator doesn't wait, so that the sensor does.
    deploy_endpoint = SageMakerEndpointOperator(
        task_id="deploy_endpoint",
        config={"EndpointName": ENDPOINT, "EndpointConfigName": CONFIG},
        wait_for_completion=False,
    )
    await_endpoint = SageMakerEndpointSensor(
        task_id="await_endpoint", endpoint_name=ENDPOINT, poke_interval=1
    )
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
        upload_data,
        train_model,
        create_model,
        configure_endpoint,
        deploy_endpoint,
        await_endpoint,
        call_endpoint(),
        delete_endpoint_config(),
        delete_endpoint(),
        delete_model,
        delete_bucket,
        archive_logs(),
    )
