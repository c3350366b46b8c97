"""Brings the local platform up and down: the emulated account, and the stacks in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from local import docker, processes
from local.paths import LocalPaths
from local.state_file import write_whole
from ops import cdk, engine
from ops.bootstrap import (
    NODE_DIRECTORY,
    ROOT,
    TOOLS,
    ensure_environment,
    ensure_node,
    environment_python,
    exclusive,
)
from ops.console import OperatorError, say, step
from ops.own_account import ready
from ops.target import STACKS, Target, local_paths, target_of

ACCOUNT = "account"
ACCOUNT_START_SECONDS = 60
ACCOUNT_STOP_SECONDS = 90
HEALTHY_SECONDS = 180
SETTLED_SECONDS = 180
MINIMUM_FREE_MIB = 1024
IMAGES = ("airflow", "training", "mlflow")  # The others are heavy, and only some pipelines need them.
# Filled when this process started the account: then no other one's deployment can be on its way.
_started_here: list[bool] = []
# What a deployed account depends on: a change in any of these means another `cdk deploy`.
DEPLOYED_FROM = (
    "app.py",
    "cdk.json",
    "requirements.txt",
    ".updraft/local/certificates/ca.pem",
) + ("stacks", "lambdas", "runtime", "docker", "ml")


def every_image() -> list[str]:
    """The images of this repository, with those that only some pipelines need."""
    return sorted(lock.parent.name for lock in (ROOT / "docker").glob("*/requirements.txt"))


def up(
    environment: str = "local", with_engine: engine.Engine | None = None, *, images: Sequence[str] = IMAGES
) -> dict[str, Any]:
    """Start the platform, deploy what changed, and wait until every service is healthy.

    An engine that is given is kept for the next starts. `images` are those whose environments are made here. Raises OperatorError for an environment that isn't of the emulated account, and while that holds another one.
    """
    started = time.monotonic()
    local_paths().make_root()
    _require_disk(local_paths().root)
    ensure_node()
    target = target_of(environment)
    _require_own_account(target)
    with exclusive("the local platform"), ThreadPoolExecutor() as pool:
        cdk.end_orphans()
        engine.choose(with_engine)
        engine.build_images(images)
        environments = [pool.submit(ensure_environment, image) for image in images]
        start_account()
        _drop_cut_off_creation(target)
        _wake(target)
        deploy_seconds = deploy_if_changed(target, environments, images)
        for made in environments:
            made.result()
    _start_workers(target)
    healthy_seconds = wait_until_healthy(target)
    return status(target) | {
        "deploy_seconds": deploy_seconds,
        "healthy_seconds": healthy_seconds,
        "up_seconds": round(time.monotonic() - started, 1),
    }


def _require_own_account(target: Target) -> None:
    if not target.is_local:
        raise OperatorError(
            f"'{target.name}' is an environment of AWS; deploy it with: ./updraft deploy --environment {target.name}"
        )
    held = _deployed().get("environment", target.name)
    if held != target.name:
        raise OperatorError(
            f"this machine holds environment '{held}'; remove it with: ./updraft down --wipe, "
            f"or start it with: ./updraft up --environment {held}"
        )


def down(*, wipe: bool) -> dict[str, Any]:
    """Stop every process of the platform, and nothing else; `wipe` also removes its state."""
    paths = local_paths()
    with exclusive("the local platform"), step("stopping the platform"):
        stopped = processes.stop(paths, ACCOUNT, timeout_seconds=ACCOUNT_STOP_SECONDS)
        reaped = processes.reap(paths)
        engine.remove_containers()
        if wipe and paths.root.exists():
            shutil.rmtree(paths.root)
    return {"stopped": bool(stopped or reaped), "wiped": wipe}


def start_account() -> None:
    """Start the emulated account unless it is running, and wait until it answers.

    Raises OperatorError with the account's last words when it gives up, for example over a port in use.
    """
    paths = local_paths()
    if ready(paths) is not None:
        return
    with step("starting the emulated account"):
        if not processes.is_running(paths, ACCOUNT):
            _started_here.append(True)
            # What a killed account left; its SageMaker jobs go on, and the next account finds them.
            processes.reap(paths, keep=("sagemaker-",))
            processes.start(
                paths,
                ACCOUNT,
                [str(environment_python(TOOLS)), "-m", "local.account"]
                + ["--state-directory", str(paths.root), "--port", str(paths.port)],
                log_file=paths.log / "account.log",
                environment=_account_environment(),
                working_directory=ROOT,
            )
        deadline = time.monotonic() + ACCOUNT_START_SECONDS
        while ready(paths) is None:
            if not processes.is_running(paths, ACCOUNT):
                raise OperatorError(_last_words(paths.log / "account.log"))
            if time.monotonic() > deadline:
                raise OperatorError(
                    f"the account did not become ready in {ACCOUNT_START_SECONDS} s; its log: {paths.log / 'account.log'}"
                )
            time.sleep(0.1)


def _account_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PYTHONPATH": str(ROOT),
        "UPDRAFT_NODE_PATH": str(NODE_DIRECTORY / "node_modules"),
        "UPDRAFT_CLOUD_ASSEMBLY": str(local_paths().cloud_assembly),
    }


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    telling = [line for line in lines[-30:] if line.startswith("updraft:")]
    if telling:
        return telling[-1].removeprefix("updraft:").strip()
    tail = "\n  ".join(lines[-10:])
    return f"the emulated account ended while starting:\n  {tail}\nIts log: {log}"


def deploy_if_changed(
    target: Target, environments: list[Future[Path]], images: Sequence[str] = IMAGES
) -> float:
    """Deploy when the sources differ from what the account holds; returns the seconds that it took, else 0."""
    record = _deployed_file()
    wanted = fingerprint(target.name)
    if _deployed().get("fingerprint") == wanted and _all_deployed(target):
        return 0.0
    started = time.monotonic()
    with ThreadPoolExecutor() as pool:
        bootstrapped = pool.submit(_bootstrap_if_needed, target)
        with step("synthesizing the stacks"):
            cdk.synth(target)
        bootstrapped.result()
    engine.build_images(images)
    for environment in environments:
        environment.result()
    if record.is_file():
        write_whole(record, {"environment": target.name, "fingerprint": None})
    _wait_until_settled(target)
    with step("deploying the stacks"):
        cdk.deploy(target)
    write_whole(record, {"environment": target.name, "fingerprint": wanted})
    return round(time.monotonic() - started, 1)


def _deployed_file() -> Path:
    """Says which environment the account holds, and what it was made from."""
    return local_paths().root / "deployed.json"


def _deployed() -> dict[str, Any]:
    """What that file says; nothing where it isn't there or can't be read, so that all is deployed again."""
    try:
        found = json.loads(_deployed_file().read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _bootstrap_if_needed(target: Target) -> None:
    if "CDKToolkit" not in _stack_states(target):
        cdk.bootstrap(target)


def _drop_cut_off_creation(target: Target) -> None:
    """Start afresh when the account ended in the middle of the very first deployment.

    What CloudFormation knew at the end may be older than what the services behind it did since. Nothing of value is
    lost: no deployment has ever been completed.
    """
    paths = local_paths()
    known = [name for name in _stack_states(target) if name.startswith(target.prefix)]
    if not known or _deployed_file().is_file() or not _started_here:
        return
    say("  the first deployment was cut off: starting afresh")
    processes.stop(paths, ACCOUNT, timeout_seconds=ACCOUNT_STOP_SECONDS)
    processes.reap(paths)
    for directory in paths.root.iterdir():
        if directory not in (paths.certificates, paths.log, docker.settings_file(paths)):
            shutil.rmtree(directory) if directory.is_dir() else directory.unlink()
    start_account()


def _wake(target: Target) -> None:
    """An environment that went to sleep still sleeps after `down`: a deployment needs its database."""
    from ops import sleeping

    sleeping.ensure_awake_if_deployed(target)


def _wait_until_settled(target: Target) -> None:
    """Let an operation end that a killed deployment left behind; CloudFormation refuses a second one meanwhile."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while moving := [name for name, state in _stack_states(target).items() if is_changing(state)]:
        if time.monotonic() > deadline:
            raise OperatorError(
                f"still changing after {SETTLED_SECONDS} s: {', '.join(moving)}. Start afresh with: ./updraft down --wipe"
            )
        time.sleep(0.5)


def is_changing(stack_status: str) -> bool:
    """Whether CloudFormation is at work on a stack of this status; in review, it waits for a change set's execution."""
    return stack_status.endswith("_IN_PROGRESS") and stack_status != "REVIEW_IN_PROGRESS"


def _stack_states(target: Target) -> dict[str, str]:
    pages = target.client("cloudformation").get_paginator("describe_stacks").paginate()
    return {stack["StackName"]: stack["StackStatus"] for page in pages for stack in page["Stacks"]}


def _all_deployed(target: Target) -> bool:
    states = _stack_states(target)
    absent = {"tracking": not target.config.tracking.enabled, "pets": target.config.pets is None}
    wanted = [short for short in STACKS if not absent.get(short, False)]
    return all(
        states.get(f"{target.prefix}-{short}", "").endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE"))
        for short in wanted
    )


def fingerprint(environment: str) -> str:
    """A digest of every file that an environment's deployed stacks are made from."""
    digest = hashlib.sha256()
    for path in _sources(environment):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(environment: str) -> Iterator[Path]:
    for name in (f"environments/{environment}.toml", *DEPLOYED_FROM):
        path = ROOT / name
        if path.is_dir():
            yield from sorted(
                file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts
            )
        elif path.is_file():
            yield path


def _start_workers(target: Target) -> None:
    """Take the load sample now, so that the first workers don't wait for the next full minute."""
    target.client("lambda").invoke(
        FunctionName=target.output("scaling", "LoadMetricFunctionName"), InvocationType="Event"
    )


def services(target: Target) -> list[dict[str, Any]]:
    """Every ECS service of an environment, and its workers, with wanted, running and healthy counts."""
    ecs = target.client("ecs")
    cluster = target.output("airflow", "ClusterName")
    tasks = _running_tasks(ecs, cluster)
    names = [arn.rsplit("/", 1)[1] for arn in ecs.list_services(cluster=cluster)["serviceArns"]]
    described = ecs.describe_services(cluster=cluster, services=names)["services"] if names else []
    rows = [
        {
            "service": service["serviceName"],
            "wanted": service["desiredCount"],
            "running": service["runningCount"],
            "healthy": _healthy(tasks, f"service:{service['serviceName']}"),
        }
        for service in described
    ]
    for queue, worker in sorted(target.config.workers.items()):
        family = f"family:{target.prefix}-worker-{queue}"
        running = [task for task in tasks if task.get("group") == family]
        rows.append(
            {
                "service": f"worker-{queue}",
                "wanted": worker.min,
                "running": len(running),
                "healthy": _healthy(tasks, family),
            }
        )
    return rows


def _running_tasks(ecs: Any, cluster: str) -> list[dict[str, Any]]:
    arns = [
        arn for page in ecs.get_paginator("list_tasks").paginate(cluster=cluster) for arn in page["taskArns"]
    ]
    found: list[dict[str, Any]] = []
    for start in range(0, len(arns), 100):
        found += ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])["tasks"]
    return [task for task in found if task["lastStatus"] == "RUNNING"]


def _healthy(tasks: list[dict[str, Any]], group: str) -> int:
    return sum(task.get("group") == group and task.get("healthStatus") == "HEALTHY" for task in tasks)


def wait_until_healthy(target: Target, timeout_seconds: float = HEALTHY_SECONDS) -> float:
    """Wait until every service and the least number of workers is healthy; returns the seconds waited."""
    started = time.monotonic()
    told: set[str] = set()
    while True:
        rows = services(target)
        for row in rows:
            if row["healthy"] >= row["wanted"] and row["service"] not in told:
                told.add(row["service"])
                say(f"  healthy: {row['service']}")
        waiting = [row["service"] for row in rows if row["healthy"] < row["wanted"]]
        if not waiting:
            return round(time.monotonic() - started, 1)
        if time.monotonic() - started > timeout_seconds:
            raise OperatorError(
                f"not healthy after {timeout_seconds:.0f} s: {', '.join(waiting)}. "
                f"Look at one with: ./updraft logs {waiting[0]}"
            )
        time.sleep(0.5)


def status(target: Target) -> dict[str, Any]:
    """What runs, how healthy it is, and where the UIs are."""
    urls = {"webserver": "http://127.0.0.1:8080"}
    if target.config.services.flower is not None:
        urls["flower"] = "http://127.0.0.1:5555"
    if target.config.tracking.enabled:
        urls["mlflow"] = "http://127.0.0.1:5000"
    document: dict[str, Any] = {"environment": target.name, "services": services(target), "urls": urls}
    if target.is_local:
        document["planes"] = (ready(local_paths()) or {}).get("planes", {})
        document["memory_mib"] = memory_mib(local_paths())
    return document


def memory_mib(paths: LocalPaths) -> int | None:
    """The proportional memory (PSS) of every process of the platform in MiB; None where the system has none."""
    total_kib = 0
    for pid in processes.all_pids(paths):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            if not Path("/proc").is_dir():
                return None
            continue
        total_kib += next(
            (int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0
        )
    return total_kib // 1024


def _require_disk(directory: Path) -> None:
    free_mib = shutil.disk_usage(directory).free // 2**20
    if free_mib < MINIMUM_FREE_MIB:
        raise OperatorError(
            f"not enough disk: {free_mib} MiB free at {directory}, the platform needs {MINIMUM_FREE_MIB} MiB. "
            "Free some space and run the same command again."
        )
