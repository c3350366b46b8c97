"""The tracking server's runs and models, as its REST API tells them."""

from __future__ import annotations

from typing import Any

import requests

EXPERIMENT = "flights"


class Mlflow:
    """The tracking server's REST API."""

    def __init__(self, url: str, login: dict[str, str]) -> None:
        self._url, self._login = f"{url}/api/2.0/mlflow", (login["username"], login["password"])

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        answer = requests.request(method, self._url + path, auth=self._login, timeout=30, **arguments)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def runs(self, query: str) -> list[dict[str, Any]]:
        """The runs of the experiment, each with its `id`, `status`, `metrics`, `params` and `tags`."""
        found = self.call("GET", "/experiments/get-by-name", params={"experiment_name": EXPERIMENT})
        body = {"experiment_ids": [found["experiment"]["experiment_id"]], "filter": query}
        return [_plain(run) for run in self.call("POST", "/runs/search", json=body).get("runs", [])]

    def run_of(self, run_id: str, task: str) -> dict[str, Any]:
        [found] = self.runs(f"tags.`updraft:run` = '{run_id}' and tags.`updraft:task` = '{task}'")
        return found

    def version(self, name: str, version: str) -> dict[str, Any]:
        found = self.call("GET", "/model-versions/get", params={"name": name, "version": version})
        return dict(found["model_version"])


def _plain(run: dict[str, Any]) -> dict[str, Any]:
    pairs = {
        part: {item["key"]: item["value"] for item in run["data"].get(part, [])}
        for part in ("metrics", "params", "tags")
    }
    return {"id": run["info"]["run_id"], "status": run["info"]["status"], **pairs}
