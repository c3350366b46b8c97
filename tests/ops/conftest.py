"""An account that answers what a test says, through real boto3 clients: requests are held against AWS's models."""

from collections.abc import Callable
from typing import Any

import boto3
import pytest

from ops.target import Target
from stacks.config import load_environment

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class FakeTarget(Target):
    """The environment `dev` with `outputs` and `answers` by operation; `asked` lists the requests in order."""

    def __init__(self, answers: dict[str, Answer], **changes: Any) -> None:
        super().__init__(load_environment("dev").model_copy(update=changes))
        self.__dict__["asked"] = []
        self.__dict__["answers"] = answers
        self.__dict__["outputs"] = {
            "airflow": {"ClusterName": "updraft-dev"},
            "storage": {"DatabaseEndpoint": "db.example.internal", "DatabasePort": "5432"},
        }

    def client(self, service: str) -> Any:
        client = boto3.client(
            service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        held: dict[str, Any] = {}

        def remember(params: dict[str, Any], **_: Any) -> None:
            held["params"] = params

        def answer(model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
            self.__dict__["asked"].append((model.name, held["params"]))
            found = self.__dict__["answers"][model.name](held["params"])
            failed = "Error" in found
            return type("Response", (), {"status_code": 400 if failed else 200})(), found

        client.meta.events.register("provide-client-params.*.*", remember)
        client.meta.events.register("before-call.*.*", answer)
        return client

    def requests(self, operation: str) -> list[dict[str, Any]]:
        return [params for name, params in self.__dict__["asked"] if name == operation]


@pytest.fixture
def target() -> type[FakeTarget]:
    return FakeTarget
