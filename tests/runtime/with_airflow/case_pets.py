"""The gate, the build and the deployments of the pet detection, held against botocore's models."""

import json
import sys
import threading
import unittest
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import botocore.session
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from botocore.validate import ParamValidator

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "dags"))

from pets import build, clean_up, ecs, eks, registry, smoke
from pets.settings import PetsSettings

REPORT = {
    "pictures": 200,
    "accuracy": 0.95,
    "baseline": {"accuracy": 0.52},
    "example": {"name": "a", "label": "cat"},
}
CONTEXT = {"ti": SimpleNamespace(dag_id="pet_detection", run_id="run")}
MODELS = botocore.session.get_session()


class Client:
    """A service by its answers; each request is held against the service's model. `calls` has what was asked.

    `pages` has what is asked for page by page.
    """

    def __init__(
        self, service: str, *, pages: Mapping[str, list[dict[str, Any]]] | None = None, **answers: Any
    ) -> None:
        self._model = MODELS.get_service_model(service)
        self._operations = {
            "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_"): name
            for name in self._model.operation_names
        }
        self._answers = answers
        self._pages = pages or {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        operation = self._operations[name]

        def call(**request: Any) -> Any:
            self._check(operation, request)
            self.calls.append((operation, request))
            answer = self._answers.get(name, {})
            if isinstance(answer, list):
                answer = answer.pop(0) if len(answer) > 1 else answer[0]
            if isinstance(answer, type) and issubclass(answer, BaseException):
                raise answer(name)
            return answer(**request) if callable(answer) else answer

        return call

    def get_paginator(self, name: str) -> Any:
        def paginate(**request: Any) -> list[dict[str, Any]]:
            self._check(self._operations[name], request)
            return self._pages[name]

        return SimpleNamespace(paginate=paginate)

    def _check(self, operation: str, request: dict[str, Any]) -> None:
        shape = self._model.operation_model(operation).input_shape
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{operation}: {report.generate_report()}"

    def names(self) -> list[str]:
        return [operation for operation, _ in self.calls]

    def requests(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.calls if name == operation]


class Gate(unittest.TestCase):
    def test_good_model_passes(self) -> None:
        self.assertEqual(registry.accept(REPORT, threshold=0.9)["accuracy"], 0.95)

    def test_model_below_the_threshold_ends_the_run_with_the_figures(self) -> None:
        with self.assertRaisesRegex(AirflowFailException, r"0\.950 of 200 .* at least 0\.96"):
            registry.accept(REPORT, threshold=0.96)

    def test_model_no_better_than_the_baseline_ends_the_run(self) -> None:
        with self.assertRaisesRegex(AirflowFailException, r"no more than the baseline's 0\.950"):
            registry.accept(REPORT | {"baseline": {"accuracy": 0.95}}, threshold=0.5)

    def test_registration_names_the_model_its_figures_and_its_run(self) -> None:
        client = Client("sagemaker", create_model_package={"ModelPackageArn": "arn"})
        pets = PetsSettings("image", "ml.g5.xlarge", "group", "ecs")
        with mock.patch("boto3.client", return_value=client):
            registry.register(
                pets, name="n" * 63, model_uri="s3://b/m.tar.gz", report=REPORT, context=CONTEXT
            )
        [request] = client.requests("CreateModelPackage")
        self.assertEqual(request["SourceUri"], "s3://b/m.tar.gz")
        self.assertEqual(
            request["CustomerMetadataProperties"],
            {
                "accuracy": "0.950000", "baseline": "0.520000", "model_uri": "s3://b/m.tar.gz",
                "dag_id": "pet_detection", "run_id": "run",
            },
        )  # fmt: skip
        # The longest that SageMaker takes.
        self.assertLessEqual(len(request["ClientToken"]), 36)


BUILD = {"project": "p", "repository": "pets", "repository_uri": "registry/pets", "source": "hash"}


def a_build(status: str, **more: Any) -> dict[str, Any]:
    return {"builds": [{"id": "p:1", "buildStatus": status, "currentPhase": "BUILD", **more}]}


class Build(unittest.TestCase):
    def run_build(self, found: list[Any], *, exists: bool = False) -> tuple[Client, Any]:
        codebuild = Client(
            "codebuild",
            start_build={"build": {"id": "p:1"}},
            batch_get_builds=found,
            stop_build={},
        )
        registry = Client("ecr", batch_get_image={"images": [{}] if exists else []})
        clients = {"codebuild": codebuild, "ecr": registry}
        with (
            mock.patch("boto3.client", side_effect=lambda name: clients[name]),
            mock.patch.object(build, "POLL_SECONDS", 0),
        ):
            try:
                return codebuild, build.build(BUILD, model_uri="s3://b/m", token="one")
            except BaseException as error:
                return codebuild, error

    def test_image_of_model_and_application_is_built_once(self) -> None:
        client, uri = self.run_build([a_build("IN_PROGRESS"), a_build("SUCCEEDED")])
        self.assertEqual(uri, f"registry/pets:{build.image_tag('s3://b/m', 'hash')}")
        self.assertNotEqual(build.image_tag("s3://b/m", "other"), build.image_tag("s3://b/m", "hash"))
        self.assertEqual(client.requests("StartBuild")[0]["idempotencyToken"], "one")
        again, same = self.run_build([], exists=True)
        self.assertEqual((again.calls, same), ([], uri))

    def test_failed_build_tells_its_phase(self) -> None:
        phase = {
            "phaseType": "BUILD",
            "phaseStatus": "FAILED",
            "contexts": [{"message": "exit status 1"}],
        }
        _, error = self.run_build([a_build("FAILED", phases=[phase])])
        self.assertIsInstance(error, AirflowException)
        self.assertIn("BUILD: exit status 1", str(error))

    def test_build_that_is_left_is_stopped(self) -> None:
        client, error = self.run_build([KeyboardInterrupt])
        self.assertIsInstance(error, KeyboardInterrupt)
        self.assertEqual(client.requests("StopBuild"), [{"id": "p:1"}])


class Application:
    """An application that takes every picture for a `label`."""

    def __init__(self, label: str, status: int = 200) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps({"label": label, "probability": 0.9}).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


NEW, OLD = "arn:aws:ecs:us-east-1:0:task-definition/pets:7", "arn:aws:ecs:us-east-1:0:task-definition/pets:6"


class EcsDeployment(unittest.TestCase):
    def deploy(
        self,
        *,
        application: str = "cat",
        health: str = "HEALTHY",
        task: dict[str, Any] | None = None,
        exists: bool = True,
        rollout: str = "COMPLETED",
        after: str = NEW,
        name: str = "127.0.0.1",
    ) -> tuple[Client, Any]:
        """Deploy NEW over OLD, and return the client and what came of it."""
        served = Application(application)
        self.addCleanup(served.stop)
        moved: list[str] = []

        def services(**_: Any) -> dict[str, Any]:
            if not exists and not moved:
                return {"services": [], "failures": [{"reason": "MISSING"}]}
            current = after if moved else OLD
            deployment = {"taskDefinition": current, "status": "PRIMARY", "rolloutState": rollout}
            return {"services": [{"status": "ACTIVE", "taskDefinition": current, "deployments": [deployment],
                                  "events": [{"message": "tasks failed to start"}]}]}  # fmt: skip

        def move(**request: Any) -> dict[str, Any]:
            moved.append(request["taskDefinition"])
            return {}

        running = {
            "lastStatus": "RUNNING",
            "desiredStatus": "RUNNING",
            "healthStatus": health,
            "containers": [{"exitCode": 1}],
            "attachments": [{"details": [{"name": "privateIPv4Address", "value": "127.0.0.1"}]}],
        } | (task or {})
        client = Client(
            "ecs",
            describe_services=services,
            describe_task_definition={
                "taskDefinition": {
                    "family": "pets", "revision": 5, "status": "ACTIVE", "taskDefinitionArn": "template",
                    "containerDefinitions": [{"name": "pets", "image": "registry/r:none", "cpu": 0}],
                    "networkMode": "awsvpc", "cpu": "512", "memory": "1024",
                }
            },
            register_task_definition={"taskDefinition": {"taskDefinitionArn": NEW}},
            list_tasks={"taskArns": []},
            run_task={"tasks": [{"taskArn": "candidate"}], "failures": []},
            describe_tasks={"tasks": [running]},
            create_service=move,
            update_service=move,
        )  # fmt: skip
        settings = {
            "cluster": "c", "service": "pets", "port": served.port, "template": "template", "registry_arn": "r",
            "name": name, "count": 1, "subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"],
            "assign_public_ip": False,
        }  # fmt: skip
        with (
            mock.patch("boto3.client", return_value=client),
            mock.patch.object(ecs, "POLL_SECONDS", 0),
        ):
            try:
                tags = [{"Key": "updraft:dag", "Value": "pet_detection"}]
                return client, ecs.deploy(
                    settings, image="registry/r:new", picture=b"x", label="cat", marker="pets-1", tags=tags
                )
            except AirflowException as error:
                return client, error

    def test_service_moves_after_a_task_of_its_own_has_told_the_picture_right(self) -> None:
        client, deployed = self.deploy()
        self.assertEqual((deployed["task_definition"], deployed["replaced"]), (NEW, OLD))
        names = client.names()
        self.assertLess(names.index("RunTask"), names.index("StopTask"))
        self.assertLess(names.index("StopTask"), names.index("UpdateService"))
        [registered] = client.requests("RegisterTaskDefinition")
        self.assertEqual(registered["containerDefinitions"][0]["image"], "registry/r:new")
        self.assertNotIn("DeregisterTaskDefinition", names)

    def test_first_deployment_makes_the_service_with_its_name(self) -> None:
        client, deployed = self.deploy(exists=False)
        self.assertIsNone(deployed["replaced"])
        [made] = client.requests("CreateService")
        self.assertEqual(made["serviceRegistries"], [{"registryArn": "r"}])

    def assert_never_moved(self, client: Client, error: Any, reason: str) -> None:
        self.assertIsInstance(error, AirflowException)
        self.assertRegex(str(error), reason)
        self.assertNotIn("UpdateService", client.names())
        self.assertIn("StopTask", client.names())
        self.assertEqual(client.requests("DeregisterTaskDefinition"), [{"taskDefinition": NEW}])

    def test_wrong_answer_leaves_the_service_as_it_is(self) -> None:
        self.assert_never_moved(*self.deploy(application="dog"), "takes a cat for a dog")

    def test_unhealthy_application_leaves_the_service_as_it_is(self) -> None:
        self.assert_never_moved(*self.deploy(health="UNHEALTHY"), "unhealthy")

    def test_application_that_ends_leaves_the_service_as_it_is(self) -> None:
        task = {"lastStatus": "STOPPED", "stoppedReason": "Essential container in task exited"}
        self.assert_never_moved(*self.deploy(task=task), r"Essential container .* exit codes \[1\]")

    def test_rollback_of_the_service_fails_the_deployment(self) -> None:
        client, error = self.deploy(after=OLD)
        self.assertRegex(str(error), "went back to what it had: tasks failed to start")
        self.assertEqual(client.requests("DeregisterTaskDefinition"), [{"taskDefinition": NEW}])


class FakeCluster:
    """A Kubernetes API that keeps what is applied."""

    def __init__(self, port: int) -> None:
        fake = self
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                path, _, query = self.path.partition("?")
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                fake.requests.append((self.command, path, query))
                status, content = fake.answer(self.command, path, body, self.headers, port)
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, body: bytes, headers: Any, port: int) -> tuple[int, Any]:
        if headers["Authorization"] != "Bearer token":
            return 401, {"message": "Unauthorized"}
        if method == "PATCH":
            assert headers["Content-Type"] == "application/apply-patch+yaml"
            manifest = json.loads(body)
            assert path.endswith(f"/{manifest['metadata']['name']}")
            if manifest["kind"] == "Deployment":
                count = manifest["spec"]["replicas"]
                manifest["status"] = {
                    "observedGeneration": 1,
                    "updatedReplicas": count,
                    "readyReplicas": count,
                }
            else:
                manifest["status"] = {"loadBalancer": {"ingress": [{"hostname": f"localhost:{port}"}]}}
            self.objects[path] = manifest
            return 200, manifest
        if path not in self.objects:
            return 404, {"message": "not found"}
        return 200, self.objects.pop(path) if method == "DELETE" else self.objects[path]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class EksDeployment(unittest.TestCase):
    SERVICES: ClassVar[str] = "/api/v1/namespaces/animals/services"
    DEPLOYMENTS: ClassVar[str] = "/apis/apps/v1/namespaces/animals/deployments"

    def setUp(self) -> None:
        self.application = Application("cat")
        self.addCleanup(self.application.stop)
        self.fake = FakeCluster(self.application.port)
        self.addCleanup(self.fake.stop)

    def bring_up(self, image: str, label: str = "cat") -> dict[str, Any]:
        with eks.Cluster(self.fake.url, "animals", token="token", authority=None) as cluster:
            return eks.bring_up(cluster, image=image, count=2, picture=b"x", label=label)

    def test_colours_take_turns_and_only_the_one_with_the_traffic_stays(self) -> None:
        self.assertEqual(self.bring_up("one")["colour"], "blue")
        second = self.bring_up("two")
        self.assertEqual((second["colour"], second["replaced"]), ("green", "blue"))
        self.assertEqual(
            sorted(self.fake.objects), [f"{self.SERVICES}/pets", f"{self.DEPLOYMENTS}/pets-green"]
        )
        self.assertEqual(
            self.fake.objects[f"{self.SERVICES}/pets"]["spec"]["selector"]["updraft/colour"], "green"
        )

    def test_failed_smoke_test_leaves_the_traffic_where_it_is(self) -> None:
        self.bring_up("one")
        with self.assertRaisesRegex(AirflowException, "takes a dog for a cat"):
            self.bring_up("two", label="dog")
        self.assertEqual(
            sorted(self.fake.objects), [f"{self.SERVICES}/pets", f"{self.DEPLOYMENTS}/pets-blue"]
        )

    def test_token_is_a_presigned_question_for_this_cluster(self) -> None:
        import base64

        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-1"}
        with mock.patch.dict("os.environ", keys):
            token = eks.token_for("mine").removeprefix("k8s-aws-v1.")
        url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        self.assertTrue(url.startswith("https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity"))
        self.assertIn("X-Amz-SignedHeaders=host%3Bx-k8s-aws-id", url)


class CleanUp(unittest.TestCase):
    def test_only_the_runs_own_jobs_are_stopped(self) -> None:
        # Each job's DAG and run; the last two are of environments whose names hold this one's.
        jobs = {
            "p-e-mine": ("pet_detection", "run"),
            "p-e-of-another-run": ("pet_detection", "else"),
            "p-e-of-another-dag": ("nightly", "run"),
            "p-e2-mine": ("pet_detection", "run"),
            "own-p-e-mine": ("pet_detection", "run"),
        }

        def tags(dag_id: str, run_id: str) -> list[dict[str, str]]:
            named = {"updraft:project": "p", "updraft:dag": dag_id, "updraft:run": run_id}
            return [{"Key": key, "Value": value} for key, value in named.items()]

        summaries = [
            {"TrainingJobArn": f"arn:aws:sagemaker:us-east-1:0:training-job/{name}", "TrainingJobName": name}
            for name in jobs
        ]
        pages: dict[str, list[dict[str, Any]]] = {
            "list_processing_jobs": [{"ProcessingJobSummaries": []}],
            "list_training_jobs": [{"TrainingJobSummaries": summaries}],
        }
        sagemaker = Client(
            "sagemaker",
            pages=pages,
            list_tags=lambda ResourceArn: {"Tags": tags(*jobs[ResourceArn.rpartition("/")[2]])},
            describe_training_job=summaries[0] | {"TrainingJobStatus": "Stopping"},
        )
        s3 = Client("s3", pages={"list_objects_v2": [{"Contents": [{"Key": "pets/run/checkpoints/a"}]}]})
        ecs_client = Client("ecs", list_tasks={"taskArns": ["left"]})
        clients = {"sagemaker": sagemaker, "s3": s3, "ecs": ecs_client}
        pets = PetsSettings("image", "ml.g5.xlarge", "group", "ecs", ecs={"cluster": "c"})
        with (
            mock.patch("boto3.client", side_effect=lambda name: clients[name]),
            mock.patch.dict("os.environ", {"UPDRAFT_PROJECT": "p", "UPDRAFT_ENVIRONMENT": "e"}),
        ):
            found = clean_up.clean_up(
                mock.Mock(data_bucket="bucket"), pets, tags=tags("pet_detection", "run"), prefix="pets/run",
                marker="pets-1",
            )  # fmt: skip
        self.assertEqual(found, {"jobs": ["p-e-mine"], "candidates": ["left"], "checkpoints": 1})
        self.assertEqual(sagemaker.requests("StopTrainingJob"), [{"TrainingJobName": "p-e-mine"}])
        self.assertEqual(
            s3.requests("DeleteObjects")[0]["Delete"], {"Objects": [{"Key": "pets/run/checkpoints/a"}]}
        )


class Smoke(unittest.TestCase):
    def test_error_of_the_application_is_told(self) -> None:
        broken = Application("cat", status=500)
        self.addCleanup(broken.stop)
        with self.assertRaisesRegex(smoke.SmokeError, "answered 500"):
            smoke.try_out(f"http://127.0.0.1:{broken.port}", b"x", label="cat")
        with self.assertRaisesRegex(smoke.SmokeError, "doesn't answer"):
            smoke.try_out("http://127.0.0.1:9", b"x", label="cat")


if __name__ == "__main__":
    unittest.main()
