"""Endpoints that really serve: from the first deployment over updates and failures to their end."""

import asyncio
import io
import itertools
import tarfile
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from local import processes
from local.account.json_api import ApiError
from local.sagemaker.runtime_api import PATH, Runtime
from tests.local.sagemaker.hosting import IMAGE, Host, wait_until

pytestmark = pytest.mark.account

ROLE = "arn:aws:iam::000000000000:role/jobs"
names = (f"endpoint-{number}" for number in itertools.count())

SERVE = """
import http.server, os, sys
model = open(os.environ["ML_ROOT"] + "/model/model.txt").read()
print("model", model, flush=True)
if model == "broken":
    sys.exit("the model is broken")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404)
        self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if body == "die":
            os._exit(1)
        status = {"bad": 400, "fault": 500}.get(body, 200)
        self.send_response(status)
        self.send_header("Content-Type", self.headers["Accept"] or self.headers["Content-Type"])
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "seen " + str(self.headers["X-Amzn-SageMaker-Custom-Attributes"]))
        self.end_headers()
        self.wfile.write(f"{model}:{body}".encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def runtime(host: Host) -> Any:
    """boto3's client of the runtime, its requests answered without a network."""
    client = boto3.client(
        "sagemaker-runtime", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b", endpoint_url="http://x"
    )  # fmt: skip
    api = Runtime(host.store, host.paths)

    def send(request: Any, **_: Any) -> AWSResponse:
        found = PATH.fullmatch(request.url.removeprefix("http://x"))
        assert found is not None
        headers = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in request.headers.items()
        }
        status, answered, body = asyncio.run(api.handle(found[1], headers, request.body or b""))
        return AWSResponse(request.url, status, answered, io.BytesIO(body))

    def stream(response: AWSResponse) -> AWSResponse:
        response.raw.stream = lambda *_, **__: iter([response.raw.read()])
        return response

    client.meta.events.register("before-send.sagemaker-runtime", lambda request, **_: stream(send(request)))
    return client


def archive(text: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        info = tarfile.TarInfo("model.txt")
        info.size = len(text)
        files.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def config_of(host: Host, **weights: float) -> str:
    """A configuration with one variant for each model text; returns its name."""
    host.program(SERVE)
    config = next(names)
    for text in weights:
        model = {"Image": IMAGE, "ModelDataUrl": host.put(f"{config}/{text}.tar.gz", archive(text))}
        request = {"ModelName": f"{config}-{text}", "PrimaryContainer": model, "ExecutionRoleArn": ROLE}
        host.service.call("CreateModel", request)
    variants = [variant(f"{config}-{text}", text, InitialVariantWeight=weight) for text, weight in weights.items()]  # fmt: skip
    host.service.call("CreateEndpointConfig", {"EndpointConfigName": config, "ProductionVariants": variants})
    return config


def variant(model: str, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
    } | changes


def describe(host: Host, name: str) -> dict[str, Any]:
    return host.service.call("DescribeEndpoint", {"EndpointName": name})


def settled(host: Host, name: str) -> dict[str, Any]:
    """The endpoint once its deployment has ended."""
    wait_until(lambda: describe(host, name)["EndpointStatus"] in ("InService", "Failed"), f"{name} settles")
    return describe(host, name)


def deployed(host: Host, **weights: float) -> str:
    """An endpoint in service; returns its name."""
    name = next(names)
    config = config_of(host, **weights)
    host.service.call("CreateEndpoint", {"EndpointName": name, "EndpointConfigName": config})
    assert settled(host, name)["EndpointStatus"] == "InService"
    return name


def instances(host: Host, name: str) -> dict[str, int]:
    """The process ids of an endpoint's instances."""
    files = host.paths.run.glob(f"sagemaker-Endpoint-{name}.*.json")
    found = {file.stem: processes.pid_of(host.paths, file.stem) for file in files}
    return {stem: pid for stem, pid in found.items() if pid is not None}


def answer(runtime: Any, name: str, body: str, **changes: Any) -> str:
    return str(runtime.invoke_endpoint(EndpointName=name, Body=body, **changes)["Body"].read().decode())


def test_endpoint_serves_its_model_as_the_runtime_api_has_it(host: Host, runtime: Any) -> None:
    name = deployed(host, one=1.0)
    found = describe(host, name)
    assert "PendingDeploymentSummary" not in found
    [summary] = found["ProductionVariants"]
    assert (summary["VariantName"], summary["CurrentInstanceCount"]) == ("one", 1)
    got = runtime.invoke_endpoint(
        EndpointName=name, Body=b"row", ContentType="text/csv", Accept="text/plain", CustomAttributes="mine"
    )
    assert got["Body"].read() == b"one:row"
    assert (got["ContentType"], got["InvokedProductionVariant"]) == ("text/plain", "one")
    assert got["CustomAttributes"] == "seen mine"
    host.wait_for_line(f"/aws/sagemaker/Endpoints/{name}", "one", "model one")


@pytest.mark.parametrize(("body", "status", "kind"), [("bad", 400, "client"), ("fault", 500, "server")])
def test_error_of_the_model_is_told_as_a_model_error(
    host: Host, runtime: Any, body: str, status: int, kind: str
) -> None:
    name = deployed(host, one=1.0)
    with pytest.raises(runtime.exceptions.ModelError, match=f"Received {kind} error") as raised:
        answer(runtime, name, body)
    told = raised.value.response
    assert told["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (told["OriginalStatusCode"], told["OriginalMessage"]) == (status, f"one:{body}")


@pytest.mark.parametrize(
    "changes", [{"TargetModel": "m"}, {"TargetVariant": "none"}, {"Body": b"x" * 6_291_457}]
)
def test_request_that_can_not_be_honoured_is_refused(
    host: Host, runtime: Any, changes: dict[str, Any]
) -> None:
    name = deployed(host, one=1.0)
    with pytest.raises(ClientError, match="ValidationError"):
        runtime.invoke_endpoint(**({"EndpointName": name, "Body": b"row"} | changes))


def test_update_serves_all_the_time_and_ends_the_old_fleet(host: Host, runtime: Any) -> None:
    name = deployed(host, old=1.0)
    before = instances(host, name)
    config = config_of(host, new=1.0)
    host.service.call("UpdateEndpoint", {"EndpointName": name, "EndpointConfigName": config})
    found = describe(host, name)
    assert found["EndpointStatus"] == "Updating"
    assert found["PendingDeploymentSummary"]["EndpointConfigName"] == config != found["EndpointConfigName"]
    answers = []
    while describe(host, name)["EndpointStatus"] == "Updating":
        answers.append(answer(runtime, name, "row"))
    # The switch may fall between the last look at the status and the answer after it: the old fleet, then the new one.
    assert (answers[0], answers.count("old:row")) == ("old:row", len(answers) - ("new:row" in answers))
    assert answers[-1] == "new:row" or "new:row" not in answers
    assert (describe(host, name)["EndpointConfigName"], answer(runtime, name, "row")) == (config, "new:row")
    wait_until(lambda: not before.items() & instances(host, name).items(), "the old fleet has left")
    assert len(instances(host, name)) == 1


def test_failed_update_leaves_what_served(host: Host, runtime: Any) -> None:
    name = deployed(host, old=1.0)
    config = describe(host, name)["EndpointConfigName"]
    request = {"EndpointName": name, "EndpointConfigName": config_of(host, broken=1.0)}
    host.service.call("UpdateEndpoint", request)
    found = settled(host, name)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", config)
    assert "variant broken did not pass the ping health check" in found["FailureReason"]
    assert answer(runtime, name, "row") == "old:row"
    wait_until(lambda: len(instances(host, name)) == 1, "the failed fleet has left")
    host.wait_for_line(f"/aws/sagemaker/Endpoints/{name}", "broken", "the model is broken")


def test_first_deployment_that_fails_says_why_and_can_only_be_deleted(host: Host, runtime: Any) -> None:
    name = next(names)
    request = {"EndpointName": name, "EndpointConfigName": config_of(host, broken=1.0)}
    host.service.call("CreateEndpoint", request)
    for operation in ("UpdateEndpoint", "DeleteEndpoint"):
        changes = request if operation == "UpdateEndpoint" else {"EndpointName": name}
        with pytest.raises(ApiError, match="Cannot update in-progress endpoint"):
            host.service.call(operation, changes)
    found = settled(host, name)
    assert (found["EndpointStatus"], "ping health check" in found["FailureReason"]) == ("Failed", True)
    with pytest.raises(ClientError, match="not found"):
        answer(runtime, name, "row")
    with pytest.raises(ApiError, match="can only be deleted"):
        host.service.call("UpdateEndpoint", request)
    delete(host, name)


def delete(host: Host, name: str) -> None:
    host.service.call("DeleteEndpoint", {"EndpointName": name})

    def gone() -> bool:
        found = host.service.call("ListEndpoints", {"NameContains": name})["Endpoints"]
        return not found

    wait_until(gone, f"{name} is gone")
    assert instances(host, name) == {}
    assert not (host.paths.sagemaker / "Endpoint" / name).exists()


def test_deleted_endpoint_leaves_no_process(host: Host) -> None:
    name = deployed(host, one=1.0, two=1.0)
    assert len(instances(host, name)) == 2
    delete(host, name)
    with pytest.raises(ApiError, match="Could not find endpoint"):
        describe(host, name)


def test_container_that_dies_is_started_again(host: Host, runtime: Any) -> None:
    name = deployed(host, one=1.0)
    with pytest.raises(ClientError):
        answer(runtime, name, "die")
    assert describe(host, name)["EndpointStatus"] == "InService"
    wait_until(lambda: answers(runtime, name), "the container is back")


def answers(runtime: Any, name: str) -> bool:
    try:
        return answer(runtime, name, "row") == "one:row"
    except runtime.exceptions.ServiceUnavailable:
        return False


def test_endpoint_outlives_a_lost_account_and_comes_back_after_a_stop(host: Host) -> None:
    name = deployed(host, one=1.0)
    before = instances(host, name)
    host.vanish()
    host.open()
    wait_until(lambda: describe(host, name)["EndpointStatus"] == "InService", "it is there")
    assert instances(host, name) == before
    host.plane.stop()
    assert instances(host, name) == {}
    assert processes.all_pids(host.paths) == []
    host.open()
    client = Runtime(host.store, host.paths)

    def served() -> bool:
        return asyncio.run(client.handle(name, {}, b"row"))[0::2] == (200, b"one:row")

    wait_until(served, "it serves again")
    assert describe(host, name)["EndpointStatus"] == "InService"


def test_deployment_that_a_stop_cut_off_goes_on(host: Host) -> None:
    name, config = next(names), config_of(host, one=1.0)
    host.service.call("CreateEndpoint", {"EndpointName": name, "EndpointConfigName": config})
    host.plane.stop()
    host.open()
    assert settled(host, name)["EndpointStatus"] == "InService"


def test_traffic_goes_where_the_weights_say(host: Host, runtime: Any) -> None:
    name = deployed(host, one=1.0, two=0.0)
    assert {answer(runtime, name, "row") for _ in range(10)} == {"one:row"}
    assert answer(runtime, name, "row", TargetVariant="two") == "two:row"
    weights = [
        {"VariantName": "one", "DesiredWeight": 0.0},
        {"VariantName": "two", "DesiredWeight": 1.0},
    ]
    request = {"EndpointName": name, "DesiredWeightsAndCapacities": weights}
    host.service.call("UpdateEndpointWeightsAndCapacities", request)
    assert settled(host, name)["EndpointStatus"] == "InService"
    assert {answer(runtime, name, "row") for _ in range(10)} == {"two:row"}


def test_deleted_config_and_model_do_not_end_what_serves(host: Host, runtime: Any) -> None:
    name = deployed(host, one=1.0)
    config = describe(host, name)["EndpointConfigName"]
    host.service.call("DeleteEndpointConfig", {"EndpointConfigName": config})
    host.service.call("DeleteModel", {"ModelName": f"{config}-one"})
    [(process, pid)] = instances(host, name).items()
    processes.stop(host.paths, process, timeout_seconds=0)
    wait_until(lambda: answers(runtime, name), "another instance serves the same model")
    assert pid not in instances(host, name).values()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ProductionVariants": [variant("none", "a")]}, "Could not find model"),
        ({"ProductionVariants": [variant("m", "a", InitialInstanceCount=2)]}, "InitialInstanceCount 2 is not"),
        ({"ProductionVariants": [variant("m", "a"), variant("m", "a")]}, "a name of its own"),
        ({"ProductionVariants": [variant("m", "a", InitialVariantWeight=0.0)]}, "must be above 0"),
        ({"ProductionVariants": [{"VariantName": "a", "ModelName": "m"}]}, "InstanceType is required"),
        ({"ProductionVariants": [variant("m", "a", InstanceType="m5.large")]}, "enum value set"),
        ({"DataCaptureConfig": {"InitialSamplingPercentage": 1, "DestinationS3Uri": "s3://data/c", "CaptureOptions": [{"CaptureMode": "Input"}]}}, "DataCaptureConfig"),
    ],
)  # fmt: skip
def test_config_that_would_not_be_honoured_is_refused(host: Host, changes: dict[str, Any], says: str) -> None:
    if "m" not in host.store.of("Model"):
        model = {"ModelName": "m", "PrimaryContainer": {"Image": IMAGE}, "ExecutionRoleArn": ROLE}
        host.service.call("CreateModel", model)
    request = {"EndpointConfigName": next(names), "ProductionVariants": [variant("m", "a")]} | changes
    with pytest.raises(ApiError, match=says):
        host.service.call("CreateEndpointConfig", request)
