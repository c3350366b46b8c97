"""The MLflow server's REST API, as far as lineage needs it.

MLflow's own client takes 120 MiB and retries for minutes; an exporter runs in every container and has time-outs of its own.
https://mlflow.org/docs/latest/api_reference/rest-api.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests

API = "/api/2.0/mlflow"
CONNECT_SECONDS, READ_SECONDS = 2.0, 10.0
# The server's own limits.
LONGEST_TAG, LONGEST_PARAM, LONGEST_KEY = 5_000, 6_000, 250
MOST_PARAMS = 100
PAGE = 200


class TrackingUnavailableError(Exception):
    """The server gave no answer or failed: the same request may succeed later."""


class TrackingRefusedError(Exception):
    """The server will never take this request; `code` is MLflow's own."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Tracking:
    """A logged-in client; raises TrackingUnavailableError and TrackingRefusedError."""

    def __init__(self, url: str, *, username: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # Its name is of the environment's own network: no proxy stands between.
        self._session.trust_env = False
        self._session.auth = (username, password)
        self._experiments: dict[str, str] = {}

    @classmethod
    def from_environment(cls) -> Tracking:
        """As the container's variables name the server."""
        return cls(
            os.environ["MLFLOW_TRACKING_URI"],
            username=os.environ["MLFLOW_TRACKING_USERNAME"],
            password=os.environ["MLFLOW_TRACKING_PASSWORD"],
        )

    def find_experiment(self, name: str) -> str | None:
        """The id of an experiment, None when there is none of that name."""
        try:
            answer = self._call("GET", f"{API}/experiments/get-by-name", params={"experiment_name": name})
        except TrackingRefusedError as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        experiment = answer["experiment"]
        if experiment["lifecycle_stage"] == "deleted":
            self._call(
                "POST", f"{API}/experiments/restore", json={"experiment_id": experiment["experiment_id"]}
            )
        return str(experiment["experiment_id"])

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made when there is none of that name."""
        if name not in self._experiments:
            found = self.find_experiment(name)
            if found is None:
                try:
                    answer = self._call("POST", f"{API}/experiments/create", json={"name": name})
                    found = str(answer["experiment_id"])
                except TrackingRefusedError as error:
                    # Somebody else made it in the meantime: names are unique.
                    if (
                        error.code != "RESOURCE_ALREADY_EXISTS"
                        or (found := self.find_experiment(name)) is None
                    ):
                        raise
            self._experiments[name] = found
        return self._experiments[name]

    def experiment_ids(self) -> list[str]:
        """Every experiment."""
        pages = self._pages("experiments/search", "experiments", {"max_results": PAGE})
        return [str(each["experiment_id"]) for each in pages]

    def search(self, experiment_ids: list[str], filter_string: str) -> Iterator[dict[str, Any]]:
        """Runs that match, the newest first."""
        if not experiment_ids:
            return
        yield from self._pages(
            "runs/search",
            "runs",
            {
                "experiment_ids": experiment_ids,
                "filter": filter_string,
                "order_by": ["attributes.start_time DESC"],
                "max_results": PAGE,
            },
        )

    def run(self, run_id: str) -> dict[str, Any]:
        """One run."""
        found: dict[str, Any] = self._call("GET", f"{API}/runs/get", params={"run_id": run_id})["run"]
        return found

    def model_version(self, name: str, version: str) -> dict[str, Any]:
        """One version of a registered model."""
        answer = self._call("GET", f"{API}/model-versions/get", params={"name": name, "version": version})
        found: dict[str, Any] = answer["model_version"]
        return found

    def model_versions(self, run_id: str) -> list[dict[str, Any]]:
        """The registered versions of what a run made."""
        parameters = {"filter": f"run_id = '{run_id}'", "max_results": PAGE}
        answer = self._call("GET", f"{API}/model-versions/search", params=parameters)
        return list(answer.get("model_versions", []))

    def create_run(self, experiment_id: str, *, name: str, start_ms: int, tags: Mapping[str, str]) -> str:
        """Make a run that goes on; returns its id."""
        body = {
            "experiment_id": experiment_id,
            "run_name": name,
            "start_time": start_ms,
            "tags": _pairs(tags),
        }
        return str(self._call("POST", f"{API}/runs/create", json=body)["run"]["info"]["run_id"])

    def update_run(self, run_id: str, *, status: str, end_ms: int | None = None) -> None:
        """Set a run's status, and its end."""
        body = {"run_id": run_id, "status": status} | ({"end_time": end_ms} if end_ms else {})
        self._call("POST", f"{API}/runs/update", json=body)

    def log(
        self, run_id: str, *, timestamp_ms: int, metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Add metrics and tags to a run; both may be repeated."""
        body = {
            "run_id": run_id,
            "tags": _pairs(tags or {}),
            "metrics": [
                {"key": as_key(key), "value": value, "timestamp": timestamp_ms, "step": 0}
                for key, value in (metrics or {}).items()
            ],
        }
        if body["tags"] or body["metrics"]:
            self._call("POST", f"{API}/runs/log-batch", json=body)

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Add parameters to a run, which never change: another value than before is refused."""
        items = [{"key": as_key(key), "value": value[:LONGEST_PARAM]} for key, value in params.items()]
        for start in range(0, len(items), MOST_PARAMS):
            self._call(
                "POST",
                f"{API}/runs/log-batch",
                json={"run_id": run_id, "params": items[start : start + MOST_PARAMS]},
            )

    def put_text(self, run: Mapping[str, Any], path: str, text: str) -> None:
        """Add a text as an artifact; the server keeps it in S3."""
        root = str(run["info"]["artifact_uri"]).partition("mlflow-artifacts:/")[2].lstrip("/")
        self._call(
            "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{quote(root)}/{quote(path)}", data=text.encode()
        )

    def _pages(self, path: str, what: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            answer = self._call("POST", f"{API}/{path}", json=body)
            yield from answer.get(what, [])
            if not (token := answer.get("next_page_token")):
                return
            body = {**body, "page_token": token}

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            answer = self._session.request(
                method, self.url + path, timeout=(CONNECT_SECONDS, READ_SECONDS), **arguments
            )
        except requests.exceptions.InvalidJSONError as error:
            # Nothing was sent, and nothing will be: a number that JSON doesn't have, such as NaN.
            raise TrackingRefusedError("INVALID_JSON", f"{method} {path}: {error}") from error
        except requests.RequestException as error:
            raise TrackingUnavailableError(f"{self.url}: {error}") from error
        if answer.status_code >= 500 or answer.status_code in (401, 403, 408, 429):
            raise TrackingUnavailableError(f"{self.url} answered {answer.status_code} to {method} {path}")
        try:
            document = answer.json() if answer.content else {}
        except ValueError as error:
            raise TrackingUnavailableError(
                f"{self.url} answered what is not JSON to {method} {path}"
            ) from error
        if answer.status_code >= 400:
            raise TrackingRefusedError(
                str(document.get("error_code", answer.status_code)), str(document.get("message", ""))
            )
        return document


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": as_key(key), "value": str(value)[:LONGEST_TAG]} for key, value in tags.items()]


def as_key(name: str) -> str:
    """A name as the server takes it, which keeps some as files: no odd characters, no way out of a folder."""
    parts = re.sub(r"[^/\w.\- :]", "_", name).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:LONGEST_KEY].rstrip("/")
