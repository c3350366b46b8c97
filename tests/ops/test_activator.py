"""`new`: whatever is chosen makes an environment that synthesizes, or is explained; nothing is ever overwritten."""

import itertools
import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.activator import STARTER, Choices, compose, create
from ops.console import OperatorError
from stacks.config import ConfigError, parse_environment
from tests.stacks.assemblies import synthesize, types

ROOT = Path(__file__).resolve().parent.parent.parent
PROFILE = "arn:aws:iam::123456789012:instance-profile/spark"
EVERY: dict[str, list[Any]] = {
    "size": ["small", "available"],
    "nat": ["instance", "gateway", "gateway_per_az"],
    "broker": ["sqs", "redis"],
    "tracking": [True, False],
    "spark": ["none", "ecs", "emr-serverless", "databricks"],
    "awake": [None, "08:00-18:00"],
    "hardened": [True, False],
    "keep_data": [True, False],
}


def chosen(values: dict[str, Any]) -> Choices:
    profile = PROFILE if values["spark"] == "databricks" else None
    return Choices(spark_instance_profile=profile, **values)


def pairwise() -> list[dict[str, Any]]:
    """Few sets of choices, so that every two answers stand together in one at least."""
    sets = [dict(zip(EVERY, answers, strict=True)) for answers in itertools.product(*EVERY.values())]
    pairs = [frozenset(itertools.combinations(values.items(), 2)) for values in sets]
    wanted = set().union(*pairs)
    found = []
    while wanted:
        best = max(range(len(sets)), key=lambda index: len(pairs[index] & wanted))
        wanted -= pairs[best]
        found.append(sets[best])
    return found


def ops(*arguments: str, stdin: Any = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=stdin,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_every_combination_of_answers_is_an_environment() -> None:
    for answers in itertools.product(*EVERY.values()):
        choices = chosen(dict(zip(EVERY, answers, strict=True)))
        config = parse_environment("mine", tomllib.loads(compose(choices)))
        assert config.spark.engine == choices.spark
        assert config.tracking.enabled == choices.tracking
        assert config.broker.kind == choices.broker
        assert (config.sleep.at is None) == (choices.awake is None)


@pytest.mark.synth
@pytest.mark.parametrize("values", pairwise(), ids=lambda values: "-".join(map(str, values.values())))
def test_every_pair_of_answers_synthesizes(values: dict[str, Any]) -> None:
    found = synthesize("mine", tomllib.loads(compose(chosen(values))))
    counts = types(found)
    assert ("tracking" in found) == values["tracking"]
    assert ("AWS::SQS::Queue" in counts) == (values["broker"] == "sqs")
    assert ("AWS::EMRServerless::Application" in counts) == (values["spark"] == "emr-serverless")


@settings(max_examples=200, deadline=None)
@given(st.builds(Choices, **{name: st.text(max_size=20) for name in ("project", "region", "nat", "awake")}))
def test_any_text_is_an_environment_or_is_explained(choices: Choices) -> None:
    explanation = ""
    try:
        parse_environment("mine", tomllib.loads(compose(choices)))
    except ConfigError as error:
        explanation = str(error)
    assert all(len(line) > 10 for line in explanation.splitlines())


def test_file_and_dags_are_written_and_never_overwritten(tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    written = create("mine", Choices(), dags=dags, directory=tmp_path)
    assert written == [tmp_path / "mine.toml", dags]
    made = sorted(path.relative_to(dags) for path in dags.rglob("*.py"))
    assert made == sorted(path.relative_to(STARTER) for path in STARTER.rglob("*.py"))
    before = (tmp_path / "mine.toml").read_text()
    with pytest.raises(OperatorError) as refused:
        create("mine", Choices(region="eu-central-1"), dags=dags, directory=tmp_path)
    assert len(str(refused.value).splitlines()) == 2
    assert (tmp_path / "mine.toml").read_text() == before


def test_all_mistakes_are_told_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    choices = Choices(size="huge", nat="tunnel", awake="8-18", region="mars", account="000000000000")
    with pytest.raises(OperatorError) as refused:
        create("Mine", choices, dags=None, directory=tmp_path)
    told = str(refused.value)
    for what in (
        "NAME: 'Mine'",
        "--size: 'huge'",
        "--awake: '8-18'",
        "--account: ",
        "network.nat: ",
        "region: ",
    ):
        assert what in told
    assert len(told.splitlines()) == 6
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_nothing_is_asked(tmp_path: Path) -> None:
    refused = ops("new", "dev", "--dags", str(tmp_path / "dags"), "--json")
    assert refused.returncode == 1
    assert "environments/dev.toml exists already" in json.loads(refused.stdout)["error"]
    assert not (tmp_path / "dags").exists()


def test_on_a_terminal_what_no_option_says_is_asked() -> None:
    terminal, stdin = pty.openpty()
    # Project, region, size, way out, broker, MLflow, Spark, hours, hardened, data: the last answer is a bad one.
    os.write(terminal, b"shop\n\n\n\nredis\nn\necs\n25:00-26:00\n\n\n")
    asked = ops("new", "activatortest", stdin=stdin)
    os.close(terminal)
    os.close(stdin)
    assert asked.returncode == 1
    assert "Broker: sqs (costs nothing" in asked.stderr
    assert "--awake: '25:00-26:00' is not two times" in asked.stderr
    assert not (ROOT / "environments" / "activatortest.toml").exists()
