"""Models, their registry, and endpoints that answer."""

from __future__ import annotations

from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerDeleteModelOperator,
    SageMakerEndpointConfigOperator,
    SageMakerEndpointOperator,
    SageMakerModelOperator,
    SageMakerRegisterModelVersionOperator,
)
from airflow.providers.amazon.aws.sensors.sagemaker import SageMakerEndpointSensor

from tests.provider.names import NEIGHBOURS_IMAGE, ROLE_ARN
from tests.provider.with_airflow.harness import (
    ANSWERS,
    ASK,
    Gate,
    Record,
    answered,
    client,
    fails,
    logged,
    name_of,
    register,
    run,
    sense,
    until,
)
from tests.provider.with_airflow.job_cases import MODES, WAIT, model_config


def made_model(name: str, gate: Gate | None = None) -> str:
    """A model that was made without an operator."""
    client().create_model(**model_config(name, gate) | {"ExecutionRoleArn": ROLE_ARN})
    return name


@register.case(SageMakerModelOperator, "sync")
def model_is_there_with_its_image(mode: str) -> None:
    name = name_of("model")
    result = run(SageMakerModelOperator, mode, config=model_config(name))
    model = client().describe_model(ModelName=name)
    assert model["PrimaryContainer"]["Image"] == NEIGHBOURS_IMAGE
    assert model["ExecutionRoleArn"] == ROLE_ARN
    assert result["Model"]["ModelArn"] == model["ModelArn"]


@register.case(SageMakerDeleteModelOperator, "sync")
def model_is_gone(mode: str) -> None:
    name = made_model(name_of("model-deleted"))
    run(SageMakerDeleteModelOperator, mode, config={"ModelName": name})
    fails("Could not find", lambda: client().describe_model(ModelName=name))


@register.case(SageMakerRegisterModelVersionOperator, "sync")
def versions_of_a_group_are_counted(mode: str) -> None:
    group = name_of("group")
    arguments = {
        "image_uri": NEIGHBOURS_IMAGE,
        "model_url": model_config(group)["PrimaryContainer"]["ModelDataUrl"],
        "package_group_name": group,
    }
    # The second time, the group is there.
    arns = [run(SageMakerRegisterModelVersionOperator, mode, **arguments) for _ in range(2)]
    found = [client().describe_model_package(ModelPackageName=arn) for arn in arns]
    assert [each["ModelPackageVersion"] for each in found] == [1, 2]
    assert {each["ModelApprovalStatus"] for each in found} == {"PendingManualApproval"}
    [container] = found[1]["InferenceSpecification"]["Containers"]
    assert (container["Image"], container["ModelDataUrl"]) == (NEIGHBOURS_IMAGE, arguments["model_url"])


def endpoint_config(name: str, model: str) -> Record:
    variant = {
        "VariantName": "only",
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    }
    return {"EndpointConfigName": name, "ProductionVariants": [variant]}


@register.case(SageMakerEndpointConfigOperator, "sync")
def endpoint_configuration_is_there_with_its_variant(mode: str) -> None:
    name = made_model(name_of("configured"))
    result = run(SageMakerEndpointConfigOperator, mode, config=endpoint_config(name, name))
    found = client().describe_endpoint_config(EndpointConfigName=name)
    assert [each["ModelName"] for each in found["ProductionVariants"]] == [name]
    assert result["EndpointConfig"]["EndpointConfigArn"] == found["EndpointConfigArn"]


def serves(name: str, config: str) -> None:
    """The endpoint is in service with a configuration, and answers."""
    endpoint = client().describe_endpoint(EndpointName=name)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", config), endpoint
    answer = client("sagemaker-runtime").invoke_endpoint(
        EndpointName=name, ContentType="text/csv", Body=ASK.encode()
    )
    assert answered(answer["Body"].read()) == ANSWERS


def end(name: str) -> None:
    """An endpoint is a process that lives until it is deleted."""
    client().delete_endpoint(EndpointName=name)
    until(lambda: name not in _endpoints(), f"{name} is deleted")


def _endpoints() -> list[str]:
    found = client().list_endpoints(MaxResults=100)["Endpoints"]
    return [each["EndpointName"] for each in found]


@register.case(SageMakerEndpointOperator, *MODES)
def endpoint_answers_and_the_same_name_updates_it(mode: str) -> None:
    name = name_of(f"endpoint-{mode}")
    everything = {
        "Model": model_config(name),
        "EndpointConfig": endpoint_config(name, name),
        "Endpoint": {"EndpointName": name, "EndpointConfigName": name},
    }
    result = run(SageMakerEndpointOperator, mode, config=everything, **WAIT)
    assert result["Endpoint"]["EndpointStatus"] == "InService"
    serves(name, name)
    other = f"{name}-other"
    client().create_endpoint_config(**endpoint_config(other, name))
    change = {"EndpointName": name, "EndpointConfigName": other}
    result = run(SageMakerEndpointOperator, mode, config=change, **WAIT)
    assert result["EndpointConfig"]["EndpointConfigName"] == other
    assert logged(f"cannot create already existing endpoint {name}"), (
        "it was not updated by the way of an error"
    )
    serves(name, other)
    end(name)


@register.together(SageMakerEndpointSensor, "poke", "reschedule")
def endpoint_sensor_waits_for_service(_mode: str) -> None:
    gate = Gate()
    name = made_model(name_of("endpoint-sensed"), gate)
    client().create_endpoint_config(**endpoint_config(name, name))
    client().create_endpoint(EndpointName=name, EndpointConfigName=name)
    sense(SageMakerEndpointSensor, gate, endpoint_name=name)
    serves(name, name)
    end(name)


@register.together(SageMakerEndpointSensor, "poke", "reschedule")
def endpoint_sensor_fails_with_the_reason_of_its_endpoint(_mode: str) -> None:
    name = made_model(name_of("endpoint-fails"))
    client("s3").delete_object(**_place(name))
    client().create_endpoint_config(**endpoint_config(name, name))
    client().create_endpoint(EndpointName=name, EndpointConfigName=name)
    error = fails(
        "failed for the following reason", lambda: sense(SageMakerEndpointSensor, Gate(), endpoint_name=name)
    )
    assert client().describe_endpoint(EndpointName=name)["FailureReason"] in str(error)
    end(name)


def _place(name: str) -> Record:
    uri = client().describe_model(ModelName=name)["PrimaryContainer"]["ModelDataUrl"]
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}
