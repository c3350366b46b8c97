"""One instance behind an endpoint: `python -m local.sagemaker.endpoint_instance DIRECTORY`.

Reads `instance.json`, downloads the model, runs its container, starts it again when it ends, and keeps `status.json`
up to date: `Creating`, `InService` with the port that answers, or `Failed` with the reason. A file `stop` asks it to
leave.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from local import docker
from local.account.principals import RoleCredentials
from local.paths import LocalPaths
from local.ports import free_port
from local.sagemaker.container import JobContainer
from local.sagemaker.outcome import JobFailedError
from local.sagemaker.serving import fetch_model, is_healthy, serving_environment
from local.sagemaker.storage import Logs, Storage
from local.state_file import write_whole

Record = dict[str, Any]
POLL_SECONDS = 0.1
# SageMaker's default of ContainerStartupHealthCheckTimeoutInSeconds, and what a container has between SIGTERM and SIGKILL.
# https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
HEALTH_CHECK_SECONDS = 480
STOP_SECONDS = 30
RESTART_SECONDS = 1.0


class LeaveError(Exception):
    """The instance was asked to leave."""


class EndpointInstance:
    """Serves one variant of an endpoint from its directory."""

    def __init__(self, directory: Path) -> None:
        spec = json.loads((directory / "instance.json").read_text())
        self.directory = directory
        self.variant: Record = spec["variant"]
        self.container: Record = spec["model"]["PrimaryContainer"]
        self.name: str = spec["name"]
        self.paths = LocalPaths(Path(spec["root"]), port=spec["port"])
        self._log_file = directory / "container.log"
        self.role = RoleCredentials(spec["model"]["ExecutionRoleArn"], self.name)
        stream = f"{self.variant['VariantName']}/{self.name.rpartition('.')[2]}-{int(time.time())}"
        self.logs = Logs(
            self.paths,
            self.role,
            group=f"/aws/sagemaker/Endpoints/{spec['endpoint']}",
            stream=stream,
            file=self._log_file,
        )

    def run(self) -> None:
        """Serve until told to leave; what keeps the container from its first answer ends in `Failed`."""
        self._report("Creating")
        try:
            fetch_model(Storage(self.paths, self.role), self.container, self.directory, self.directory / "ml")
            self._serve(first=True)
            while True:
                time.sleep(RESTART_SECONDS)
                self._serve(first=False)
        except LeaveError:
            self.logs.finish()
        except JobFailedError as error:
            self._fail(str(error))
        except Exception as error:
            traceback.print_exc()
            self._fail(
                f"The model of production variant {self.variant['VariantName']} can't be served: {error}"
            )

    def _serve(self, *, first: bool) -> None:
        """Run the container until it ends; raises JobFailedError when it never answers at `first`."""
        port = free_port()
        process = self._start(port)
        try:
            is_ready = self._wait_for_health(process, port)
            if not is_ready and first:
                raise JobFailedError(
                    f"The primary container for production variant {self.variant['VariantName']} did not pass the "
                    "ping health check. Please check CloudWatch logs for this endpoint."
                )
            if is_ready:
                self._report("InService", port=port)
            while is_ready and process.poll() is None:
                self._stay()
        finally:
            _end(process)
        self._report("Restarting")

    def _wait_for_health(self, process: subprocess.Popen[bytes], port: int) -> bool:
        limit = self.variant.get("ContainerStartupHealthCheckTimeoutInSeconds", HEALTH_CHECK_SECONDS)
        deadline = time.monotonic() + limit
        while process.poll() is None and time.monotonic() < deadline:
            if is_healthy(port):
                return True
            self._stay()
        return False

    def _stay(self) -> None:
        if (self.directory / "stop").exists():
            raise LeaveError
        self.logs.ship()
        time.sleep(POLL_SECONDS)

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        container = JobContainer(
            self.paths,
            self.role,
            docker.job_container("Endpoint", self.name),
            self.directory,
            self.directory / "ml",
        )
        environment = serving_environment(port, self.container.get("Environment", {}))
        with self._log_file.open("ab") as output:
            return container.start(self.container["Image"], ["serve"], environment, None, output)

    def _fail(self, reason: str) -> None:
        self.logs.finish()
        self._report("Failed", reason=reason[:1024])

    def _report(self, status: str, **more: Any) -> None:
        write_whole(self.directory / "status.json", {"status": status, **more})


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
        process.kill()
        process.wait()


if __name__ == "__main__":
    # The account's own stop reaches this process too; what it started must not outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    EndpointInstance(Path(sys.argv[1])).run()
