"""Airflow's OpenLineage provider sends to what the containers' variables name, and does nothing without them."""

from __future__ import annotations

import json
import os
import unittest
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

received: list[tuple[str, dict[str, Any]]] = []


class Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        received.append((self.path, json.loads(body)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


class OpenLineage(unittest.TestCase):
    def setUp(self) -> None:
        from airflow.providers.openlineage import conf

        for name in ("is_disabled", "transport", "namespace", "execution_timeout"):
            getattr(conf, name).cache_clear()
        self.conf = conf

    def test_events_go_where_the_variables_say(self) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
        Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        # As stacks/constructs/airflow_environment.py writes them.
        given = {
            "TRANSPORT": json.dumps(
                {
                    "type": "http",
                    "url": f"http://127.0.0.1:{server.server_port}",
                    "endpoint": "api/v1/lineage",
                }
            ),
            "NAMESPACE": "updraft-test",
            "EXECUTION_TIMEOUT": "1",
        }
        for name, value in given.items():
            os.environ[f"AIRFLOW__OPENLINEAGE__{name}"] = value
            self.addCleanup(os.environ.pop, f"AIRFLOW__OPENLINEAGE__{name}")
        from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter
        from airflow.utils.state import DagRunState

        self.assertFalse(self.conf.is_disabled())
        self.assertEqual(self.conf.execution_timeout(), 1)
        now = datetime(2026, 1, 2, tzinfo=UTC)
        OpenLineageAdapter().dag_failed(
            dag_id="flights", run_id="manual", end_date=now, logical_date=now, nominal_start_time=None,
            nominal_end_time=None, tags=[], clear_number=0, dag_run_state=DagRunState.FAILED, task_ids=[],
            owners=[], msg="", run_facets={}, job_description=None, is_asset_triggered=False,
        )  # fmt: skip
        [(path, event)] = received
        self.assertEqual((path, event["job"]["namespace"]), ("/api/v1/lineage", "updraft-test"))
        self.assertEqual((event["job"]["name"], event["eventType"]), ("flights", "FAIL"))

    def test_without_the_variables_there_is_nothing(self) -> None:
        self.assertTrue(self.conf.is_disabled())


if __name__ == "__main__":
    unittest.main()
