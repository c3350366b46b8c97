"""Port forwarding through the bastion, kept open: what a session forwards, and what to do when it drops."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ops.console import OperatorError, say
from ops.sessions import find_plugin, plugin_call
from ops.target import Target, local_paths

DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
# The bastion carries it for CodeDeploy; it holds through a replaced instance.
BASTION_TAG = "updraft:codedeploy"
PORTS = {"webserver": 8080, "flower": 5555, "mlflow": 5000, "database": 5432}
OPEN_SECONDS = 30
LONGEST_DELAY_SECONDS = 30
# A session that lived this long was a good one: the next delay starts small again.
GOOD_SECONDS = 60
STOP_SECONDS = 5


@dataclass(frozen=True)
class Forward:
    """One service: `host` and `remote_port` as the bastion reaches it, `local_port` on this machine's 127.0.0.1."""

    service: str
    host: str
    remote_port: int
    local_port: int

    @property
    def url(self) -> str:
        scheme = "postgresql" if self.service == "database" else "http"
        return f"{scheme}://127.0.0.1:{self.local_port}"


def forwards(target: Target, services: Sequence[str], local_ports: Sequence[int]) -> list[Forward]:
    """What each named service needs; raises OperatorError with every mistake.

    `local_ports` belong to the services in their order; those without one get the service's own port.
    """
    mistakes = [
        f"{name}: no such service; there are {', '.join(PORTS)}" for name in services if name not in PORTS
    ]
    if "flower" in services and target.config.services.flower is None:
        mistakes.append(f"flower: '{target.name}' has none (services.flower in its file)")
    if "mlflow" in services and not target.config.tracking.enabled:
        mistakes.append(f"mlflow: '{target.name}' has none (tracking.enabled in its file)")
    if len(local_ports) > len(services):
        mistakes.append(f"--local-port: {len(local_ports)} came for {len(services)} services")
    chosen = [*local_ports, *(PORTS.get(name, 0) for name in services[len(local_ports) :])]
    mistakes += [
        f"--local-port: {port} is not between 1 and 65535" for port in local_ports if not 1 <= port <= 65535
    ]
    if len(set(chosen)) < len(chosen) or len(set(services)) < len(services):
        mistakes.append("two services can't have one local port, nor one service two tunnels")
    if mistakes:
        raise OperatorError("\n  ".join(mistakes))
    target.output("airflow", "ClusterName")  # says in plain words when there is no platform
    return [_forward(target, name, port) for name, port in zip(services, chosen, strict=True)]


def _forward(target: Target, service: str, local_port: int) -> Forward:
    if service == "database":
        host = target.output("storage", "DatabaseEndpoint")
        return Forward(service, host, int(target.output("storage", "DatabasePort")), local_port)
    return Forward(service, f"{service}.{target.prefix}.internal", PORTS[service], local_port)


def find_bastion(target: Target) -> str:
    """The id of the running bastion; raises OperatorError when there is none."""
    filters = [
        {"Name": f"tag:{BASTION_TAG}", "Values": [target.prefix]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    pages = target.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    found = [
        instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    if not found:
        raise OperatorError(
            f"'{target.name}' has no running bastion (an instance tagged {BASTION_TAG}={target.prefix}): "
            f"start it in EC2, or deploy again with: ./updraft deploy --environment {target.name}"
        )
    return str(max(found, key=lambda instance: instance["LaunchTime"])["InstanceId"])


class Tunnel:
    """One service's forwarding: `open` once, then `keep` until `close`."""

    def __init__(self, target: Target, forward: Forward, *, plugin: Sequence[str]) -> None:
        self.forward = forward
        self._target = target
        self._plugin = plugin
        self._session_id: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def open(self) -> None:
        """Start a session and wait until its port takes connections; raises OperatorError when it doesn't."""
        request = {
            "Target": find_bastion(self._target),
            "DocumentName": DOCUMENT,
            "Parameters": {
                "host": [self.forward.host],
                "portNumber": [str(self.forward.remote_port)],
                "localPortNumber": [str(self.forward.local_port)],
            },
        }
        session = self._start_session(request)
        self._session_id = session["SessionId"]
        argv, environment = plugin_call(self._plugin, self._target, session, request)
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        self._process = process
        deadline = time.monotonic() + OPEN_SECONDS
        while self._stopping.is_set() or not is_listening(self.forward.local_port):
            code = process.poll()
            if code is not None or time.monotonic() > deadline or self._stopping.is_set():
                self._end_session()
                reason = f"ended with {code}" if code is not None else f"opened no port in {OPEN_SECONDS} s"
                raise OperatorError(f"{self.forward.service}: the session {reason}; its words are above")
            time.sleep(0.05)

    def keep(self, say: Callable[[str], None] = say) -> None:
        """Open the session again whenever it drops, waiting longer after each failure; returns after `close`."""
        opened, failures = time.monotonic(), 0
        while True:
            if (process := self._process) is not None:
                process.wait()
                if time.monotonic() - opened > GOOD_SECONDS:
                    failures = 0
            # Also gives Ctrl-C, which ends the plugin too, the time to say that this is the end.
            if self._stopping.wait(min(2**failures, LONGEST_DELAY_SECONDS)):
                return
            failures += 1
            say(f"  {self.forward.service}: the session dropped, opening it again")
            try:
                self._end_session()
                self.open()
                opened = time.monotonic()
                say(f"  {self.forward.service}: {self.forward.url} again")
            except (OperatorError, BotoCoreError, ClientError) as error:
                say(f"  {self.forward.service}: {error}")

    def close(self) -> None:
        """End the session and its plugin."""
        self._stopping.set()
        self._end_session()

    def _start_session(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self._target.client("ssm").start_session(**request)
        except ClientError as error:
            if error.response["Error"]["Code"] == "TargetNotConnected":
                raise OperatorError(
                    f"the bastion {request['Target']} runs, but its SSM agent is not connected: a new instance needs "
                    "a minute or two; then look at its way out (NAT) and its role"
                ) from error
            raise OperatorError(f"{self.forward.service}: no session: {error}") from error
        return answer

    def _end_session(self) -> None:
        process, self._process = self._process, None
        session_id, self._session_id = self._session_id, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if session_id is not None:
            # What the plugin has closed itself is not worth a word.
            with contextlib.suppress(BotoCoreError, ClientError):
                self._target.client("ssm").terminate_session(SessionId=session_id)


def is_listening(port: int) -> bool:
    """Whether something takes connections on 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def open_all(target: Target, wanted: Sequence[Forward]) -> list[Tunnel]:
    """Open a tunnel for each; on the first that fails, close the others and raise OperatorError."""
    plugin = find_plugin()
    taken = [f"{item.local_port} ({item.service})" for item in wanted if is_listening(item.local_port)]
    if taken:
        raise OperatorError(
            f"in use on 127.0.0.1: port {', '.join(taken)}; choose another with --local-port, one for each service"
        )
    opened: list[Tunnel] = []
    try:
        for forward in wanted:
            tunnel = Tunnel(target, forward, plugin=plugin)
            opened.append(tunnel)
            tunnel.open()
    except BaseException:
        for tunnel in opened:
            tunnel.close()
        raise
    return opened


def keep_all(tunnels: Sequence[Tunnel]) -> None:
    """Keep every tunnel open until Ctrl-C, then close them."""
    threads = [threading.Thread(target=tunnel.keep, daemon=True) for tunnel in tunnels]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        say("closing")
    finally:
        for tunnel in tunnels:
            tunnel.close()
        for thread in threads:
            thread.join(STOP_SECONDS)


def ssh_config(target: Target, wanted: Sequence[Forward]) -> str:
    """A block for ~/.ssh/config: `ssh -N HOST` then forwards the same ports through Session Manager."""
    region = target.config.region
    # EC2 Instance Connect takes a key for one minute: none is stored on the bastion.
    send_key = (
        f"aws ec2-instance-connect send-ssh-public-key --region {region} --instance-id %h --instance-os-user %r "
        "--ssh-public-key file://$HOME/.ssh/id_ed25519.pub >/dev/null"
    )
    start = (
        f"aws ssm start-session --region {region} --target %h --document-name AWS-StartSSHSession "
        "--parameters portNumber=%p"
    )
    lines = [
        f"Host {target.prefix}-bastion",
        f"  HostName {find_bastion(target)}",
        "  User ec2-user",
        "  IdentityFile ~/.ssh/id_ed25519",
        f'  ProxyCommand sh -c "{send_key} && {start}"',
        *(f"  LocalForward {item.local_port} {item.host}:{item.remote_port}" for item in wanted),
    ]
    return "\n".join(lines)


def on_this_laptop(wanted: Sequence[Forward]) -> list[Forward]:
    """Where the same services are on the laptop: the account publishes their ports on 127.0.0.1 itself."""
    paths = local_paths()
    published = {
        "webserver": paths.webserver_port,
        "flower": paths.flower_port,
        "mlflow": paths.mlflow_port,
    }
    return [replace(item, local_port=published.get(item.service, item.remote_port)) for item in wanted]


def how_to_reach(forward: Forward) -> str:
    """The address; for the database the whole connection, whose certificate names the host behind the tunnel."""
    if forward.service != "database":
        return forward.url
    return (
        f'psql "host={forward.host} hostaddr=127.0.0.1 port={forward.local_port} dbname=airflow '
        "sslmode=verify-full sslrootcert=CA_BUNDLE\" (CA_BUNDLE: database.ca_bundle in the environment's file; "
        "the log-in: DatabaseSecretArn in the storage stack's outputs)"
    )
