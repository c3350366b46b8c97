"""A new environment from a few choices: its file, checked before it is written, and a folder of DAGs to start from."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ops.console import OperatorError
from stacks.config import EMULATED_ACCOUNT, ENVIRONMENTS, ConfigError, parse_environment
from stacks.sections import CLOCK_TIME

STARTER = Path(__file__).with_name("starter")
NAME = re.compile(r"[a-z][a-z0-9]{0,15}")
HOURS = re.compile(rf"{CLOCK_TIME.strip('^$')}-{CLOCK_TIME.strip('^$')}")
SIZES = {"small": "one task for the control plane, workers on spot", "available": "two of each, in two zones"}


@dataclass(frozen=True)
class Choices:
    """What `new` asks; every other value of the file is a default that can be changed in it."""

    project: str = "updraft"
    region: str = "us-east-1"
    account: str | None = None
    size: str = "small"
    nat: str = "instance"
    broker: str = "sqs"
    tracking: bool = True
    spark: str = "none"
    spark_instance_profile: str | None = None
    awake: str | None = None
    time_zone: str = "UTC"
    hardened: bool = False
    keep_data: bool = True
    budget_usd: int = 100
    alarm_email: str | None = None


def create(name: str, choices: Choices, *, dags: Path | None, directory: Path = ENVIRONMENTS) -> list[Path]:
    """Write the environment and the DAGs; returns the paths. Raises OperatorError with every mistake, writing nothing."""
    mistakes = list(_mistakes(name, choices, dags, directory))
    if choices.awake is not None and not HOURS.fullmatch(choices.awake):
        # Told already: the environment's rules would say it again of what was made of it.
        choices = replace(choices, awake=None)
    text = compose(choices)
    mistakes += _refusals(name, text)
    if mistakes:
        raise OperatorError("\n".join(mistakes))
    file = directory / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    if dags is None:
        return [file]
    shutil.copytree(STARTER, dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return [file, dags]


def _mistakes(name: str, choices: Choices, dags: Path | None, directory: Path) -> Iterator[str]:
    """What is wrong beside the values that the environment's own rules look at."""
    if not NAME.fullmatch(name):
        yield f"NAME: {name!r} is no name of an environment: a small letter, then at most 15 small letters and digits"
    elif (directory / f"{name}.toml").exists():
        yield f"NAME: environments/{name}.toml exists already; choose another name, or remove the file"
    if choices.size not in SIZES:
        yield f"--size: {choices.size!r} is not one of {', '.join(SIZES)}"
    if choices.awake is not None and not HOURS.fullmatch(choices.awake):
        yield f"--awake: {choices.awake!r} is not two times such as 08:00-18:00"
    if choices.account == EMULATED_ACCOUNT:
        yield f"--account: {EMULATED_ACCOUNT} is the emulated account of this machine; copy environments/local.toml for it"
    if dags is not None and dags.exists() and (not dags.is_dir() or any(dags.iterdir())):
        yield f"--dags: {dags} exists already and is not an empty folder; choose another one"


def _refusals(name: str, text: str) -> list[str]:
    """What the environment's own rules say of the file, whatever its name is."""
    try:
        parse_environment(name if NAME.fullmatch(name) else "new", tomllib.loads(text))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def compose(choices: Choices) -> str:
    """The environment's file as TOML."""
    sections = [_top(choices), _network(choices), _database(choices), _broker(choices), _services(choices)]
    sections += [_workers(choices), _sleep(choices), _workflows(choices)]
    sections += [f"[tracking]\nenabled = {_toml(choices.tracking)}", _spark(choices)]
    return "\n\n".join(filter(None, sections)) + "\n"


def _top(choices: Choices) -> str:
    merged = choices.size == "small"
    lines = [
        "# Made by `./updraft new`; every value that may stand here: docs/environments.md.",
        f"project = {_toml(choices.project)}",
        f"region = {_toml(choices.region)}",
        f"account = {_toml(choices.account)}" if choices.account else "",
        f'topology = "{"merged" if merged else "separate"}"',
        f"log_retention_days = {14 if merged else 90}",
        f"keep_data_on_destroy = {_toml(choices.keep_data)}",
        f"hardened = {_toml(choices.hardened)}",
    ]
    return "\n".join(filter(None, lines))


def _network(choices: Choices) -> str:
    return f"[network]\nnat = {_toml(choices.nat)}"


def _database(choices: Choices) -> str:
    available = choices.size == "available"
    return "\n".join(
        [
            "[database]",
            f'instance_class = "{"db.m7g.large" if available else "db.t4g.micro"}"',
            f"multi_az = {_toml(available)}",
            f"deletion_protection = {_toml(choices.keep_data)}",
            f"backup_retention_days = {14 if available else 1}",
            'ca_bundle = "docker/certificates/rds-global-bundle.pem"',
        ]
    )


def _broker(choices: Choices) -> str:
    available = choices.size == "available" and choices.broker == "redis"
    multi_az = '\nnode_type = "cache.m7g.large"\nmulti_az = true' if available else ""
    return f"[broker]\nkind = {_toml(choices.broker)}{multi_az}"


def _services(choices: Choices) -> str:
    flower = "flower = { cpu = 256, memory_mib = 512 }" if choices.broker == "redis" else ""
    if choices.size == "small":
        lines = ['capacity = "FARGATE_SPOT"', "control_plane = { cpu = 1024, memory_mib = 4096 }", flower]
    else:
        lines = [
            "webserver = { cpu = 1024, memory_mib = 4096, count = 2 }",
            "scheduler = { cpu = 1024, memory_mib = 4096, count = 2 }",
            "dag_processor = { cpu = 1024, memory_mib = 2048 }",
            "triggerer = { cpu = 1024, memory_mib = 2048, count = 2 }",
            flower,
        ]
    return "\n".join(["[services]", *filter(None, lines)])


def _workers(choices: Choices) -> str:
    if choices.size == "small":
        fleet = "cpu = 1024, memory_mib = 4096, concurrency = 8, min = 0, max = 5, spot_percent = 100"
    else:
        fleet = "cpu = 2048, memory_mib = 8192, concurrency = 16, min = 1, max = 20"
    return f"[workers]\ndefault = {{ {fleet} }}"


def _sleep(choices: Choices) -> str:
    if choices.awake is None:
        return ""
    wake, _, at = choices.awake.partition("-")
    return f"[sleep]\nat = {_toml(at)}\nwake = {_toml(wake)}\ntime_zone = {_toml(choices.time_zone)}"


def _workflows(choices: Choices) -> str:
    email = f"\nalarm_email = {_toml(choices.alarm_email)}" if choices.alarm_email else ""
    return f"[workflows]\nmonthly_budget_usd = {choices.budget_usd}{email}"


def _spark(choices: Choices) -> str:
    profile = choices.spark_instance_profile
    databricks = f"\ndatabricks = {{ instance_profile_arn = {_toml(profile)} }}" if profile else ""
    return f"[spark]\nengine = {_toml(choices.spark)}{databricks}"


def _toml(value: str | bool | None) -> str:
    """A TOML string or boolean; what a string may hold in TOML and in JSON is the same but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
