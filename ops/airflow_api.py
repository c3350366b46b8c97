"""Airflow's REST API, version 2, as the command line uses it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from ops.console import OperatorError

TIMEOUT_SECONDS = 20
# The most that the API answers at once by default.
PAGE = 100
# A question that got no answer is asked again; what changes something never is, and nobody at all is told at once.
ASK_AGAIN = Retry(
    total=2, connect=0, status_forcelist=(502, 503, 504), allowed_methods=("GET",), backoff_factor=0.5,
    raise_on_status=False,
)  # fmt: skip
FINISHED_STATES = frozenset({"success", "failed"})


class AirflowApi:
    """A logged-in client; `base_url` has no path, for example `http://127.0.0.1:8080`.

    `hint` is for the user when nobody answers there.
    """

    def __init__(
        self, base_url: str, *, username: str, password: str, hint: str = "is the platform up?"
    ) -> None:
        self.base_url = base_url
        self._hint = hint
        self._session = requests.Session()
        self._session.trust_env = False  # a loopback address needs no proxy
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=ASK_AGAIN))
        answer = self._send("POST", "/auth/token", json={"username": username, "password": password})
        self._session.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def _send(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._session.request(
                method, f"{self.base_url}{path}", timeout=TIMEOUT_SECONDS, **arguments
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise OperatorError(f"no answer from the webserver at {self.base_url}: {self._hint}") from error
        if response.status_code >= 400:
            try:
                detail = response.json().get("detail", response.text)
            except ValueError:
                detail = response.text
            raise OperatorError(f"Airflow answered {response.status_code} to {method} {path}: {detail}")
        return response.json() if response.content else None

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG that the dag-processor serves now."""
        answer: dict[str, Any] = self._send(
            "GET", "/api/v2/dags", params={"limit": 1000, "exclude_stale": True}
        )
        return list(answer["dags"])

    def import_errors(self) -> list[dict[str, Any]]:
        """Files that the dag-processor could not import, with their stack traces."""
        answer: dict[str, Any] = self._send("GET", "/api/v2/importErrors")
        return list(answer["import_errors"])

    def longest_task(self) -> dict[str, Any] | None:
        """The ended task instance that took longest, if any has ended."""
        path = "/api/v2/dags/~/dagRuns/~/taskInstances"
        answer = self._send(
            "GET", path, params={"order_by": "-duration", "limit": 1, "state": ["success", "failed"]}
        )
        return answer["task_instances"][0] if answer["task_instances"] else None

    def scheduler_heartbeat(self) -> str:
        """When a scheduler was last alive, in ISO 8601 with its offset."""
        health: dict[str, Any] = self._send("GET", "/api/v2/monitor/health")
        return str(health["scheduler"]["latest_scheduler_heartbeat"])

    def params(self, dag_id: str) -> list[str]:
        """The names of a DAG's parameters."""
        details: dict[str, Any] = self._send("GET", f"/api/v2/dags/{quote(dag_id)}/details")
        return list(details["params"] or {})

    def active_run(self, dag_id: str, *, prefix: str) -> str | None:
        """The newest run with this prefix that has not ended, if there is one."""
        answer = self._send(
            "GET",
            f"/api/v2/dags/{quote(dag_id)}/dagRuns",
            params={"state": ["queued", "running"], "order_by": "-run_after", "limit": 100},
        )
        runs = (str(run["dag_run_id"]) for run in answer["dag_runs"])
        return next((run_id for run_id in runs if run_id.startswith(prefix)), None)

    def trigger(self, dag_id: str, conf: dict[str, Any], *, run_id: str | None = None) -> dict[str, Any]:
        """Start a run, unpausing the DAG first, since a run of a paused DAG never starts."""
        self._send("PATCH", f"/api/v2/dags/{quote(dag_id)}", json={"is_paused": False})
        run: dict[str, Any] = self._send(
            "POST",
            f"/api/v2/dags/{quote(dag_id)}/dagRuns",
            json={"conf": conf, "logical_date": None} | ({"dag_run_id": run_id} if run_id else {}),
        )
        return run

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One DAG run."""
        run: dict[str, Any] = self._send("GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}")
        return run

    def find_runs(self, *, run_id: str | None = None, version: str | None = None) -> list[dict[str, Any]]:
        """The newest runs of any DAG, at most 100, with exactly this id or on this bundle version."""
        wanted: dict[str, Any] = {"order_by": "-run_after", "limit": PAGE}
        if run_id is not None:
            wanted["run_id_pattern"] = run_id
        if version is not None:
            wanted["bundle_version"] = version
        answer = self._send("GET", "/api/v2/dags/~/dagRuns", params=wanted)
        return [run for run in answer["dag_runs"] if run_id in (None, run["dag_run_id"])]

    def unfinished_runs(self, *, dag_id: str = "~", version: str | None = None) -> int:
        """How many runs of a DAG, by default of any, are queued or running; on one bundle version or on any."""
        wanted: dict[str, Any] = {"state": ["queued", "running"], "limit": 1}
        if version is not None:
            wanted["bundle_version"] = version
        return int(self._send("GET", f"/api/v2/dags/{quote(dag_id)}/dagRuns", params=wanted)["total_entries"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run, in no particular order."""
        path = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances"
        answer: dict[str, Any] = self._send("GET", path, params={"limit": 1000})
        return list(answer["task_instances"])

    def task_history(self, queue: str, since: str) -> Iterator[dict[str, Any]]:
        """Task instances of a queue, of every DAG, that began since a moment (ISO 8601)."""
        offset = 0
        while True:
            answer = self._send(
                "GET",
                "/api/v2/dags/~/dagRuns/~/taskInstances",
                params={
                    "queue": queue, "start_date_gte": since, "limit": PAGE, "offset": offset, "order_by": "id",
                },
            )  # fmt: skip
            yield from answer["task_instances"]
            offset += PAGE
            if len(answer["task_instances"]) < PAGE:
                return

    def xcom(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned."""
        path = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task_id)}"
        return self._send("GET", f"{path}/xcomEntries/return_value", params={"deserialize": True})["value"]

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int, *, map_index: int = -1
    ) -> Iterator[str]:
        """The lines of one try's log; `map_index` is -1 for a task that isn't mapped."""
        path = f"/api/v2/dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task_id)}"
        answer = self._send(
            "GET", f"{path}/logs/{try_number}", params={"full_content": True, "map_index": map_index}
        )
        for entry in answer["content"]:
            if isinstance(entry, str):
                yield entry
                continue
            yield f"{entry.get('timestamp') or ''} {entry.get('event', '')}".strip()
            # The exception of a failed task, and those that it came from.
            for error in entry.get("error_detail") or []:
                yield from f"{error.get('exc_type')}: {error.get('exc_value')}".splitlines()

    def wait(
        self, dag_id: str, run_id: str, *, timeout_seconds: float, on_change: Callable[[str, str], None]
    ) -> dict[str, Any]:
        """Wait until a run has ended, telling each task's new state; raises OperatorError past the limit."""
        deadline = time.monotonic() + timeout_seconds
        seen: dict[str, str] = {}
        while True:
            run = self.run(dag_id, run_id)
            for task in self.task_instances(dag_id, run_id):
                state = task["state"] or "waiting"
                label = task["task_id"] + (f"[{task['map_index']}]" if task["map_index"] >= 0 else "")
                if seen.get(label, "waiting") != state:
                    on_change(label, state)
                seen[label] = state
            if run["state"] in FINISHED_STATES:
                return run
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"{dag_id} {run_id} is still {run['state']} after {timeout_seconds:.0f} s; it goes on. "
                    f"Look again with: ./updraft logs {run_id}"
                )
            time.sleep(0.5)
