"""The Spark image's launcher: what it fetches, hands on and puts back, and what it says when it can't."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands for spark-submit: runs the program with its arguments, and keeps what Spark was configured with.
SUBMIT = """#!{python}
import json, subprocess, sys
program = next(index for index, word in enumerate(sys.argv) if word.endswith("program.py"))
conf = dict(word.split("=", 1) for word in sys.argv[1:program] if "=" in word)
open({conf!r}, "w").write(json.dumps(conf))
sys.exit(subprocess.run([sys.executable, *sys.argv[program:]]).returncode)
"""
PROGRAM = """
import pathlib, sys
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
output = pathlib.Path(given["--output"])
(output / "trials").mkdir()
(output / "trials" / "part-{part}").write_text(pathlib.Path(given["--train"]).read_text().upper())
(output / "trials" / ".part-0.crc").write_text("x")
(output / "events" / "local-{part}").write_text("{{}}")
sys.exit({code})
"""


class S3:
    """A bucket in memory."""

    def __init__(self, objects: dict[str, str]) -> None:
        self.objects = objects

    def download_file(self, bucket: str, key: str, file: str) -> None:
        Path(file).write_text(self.objects[f"{bucket}/{key}"])

    def upload_file(self, file: str, bucket: str, key: str) -> None:
        self.objects[f"{bucket}/{key}"] = Path(file).read_text()

    def get_paginator(self, operation: str) -> Any:
        assert operation == "list_objects_v2"

        def paginate(*, Bucket: str, Prefix: str) -> list[dict[str, Any]]:
            found = [key.partition("/")[2] for key in self.objects if key.startswith(f"{Bucket}/{Prefix}")]
            # One object a page; a folder that isn't there is a page without contents.
            return [*({"Contents": [{"Key": key}]} for key in found), {}]

        return SimpleNamespace(paginate=paginate)

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        for item in Delete["Objects"]:
            del self.objects[f"{Bucket}/{item['Key']}"]
        return {}


@pytest.fixture
def launcher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("local_spark", ROOT / "docker" / "spark" / "local_spark.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the PATH, with a `java` and a `spark-submit`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "java").write_text("#!/bin/sh\n")
    (folder / "spark-submit").write_text(
        SUBMIT.format(python=sys.executable, conf=str(tmp_path / "conf.json"))
    )
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SPARK_MEMORY_MIB", "4096")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def options(**changes: Any) -> argparse.Namespace:
    given = {"program": "s3://data/p.py", "output": "s3://data/r/spark", "input": ["train=s3://data/t.csv"]}
    return argparse.Namespace(**(given | changes))


@pytest.mark.usefixtures("path")
def test_results_and_event_log_are_put_where_they_were_asked_for(
    launcher: ModuleType, tmp_path: Path
) -> None:
    s3 = S3({"data/p.py": PROGRAM.format(code=0, part=0), "data/t.csv": "a,b"})
    launcher.run(options(), ["--grid", "{}"], s3=s3)
    written = {key for key in s3.objects if key.startswith("data/r/")}
    assert written == {"data/r/spark/trials/part-0", "data/r/spark/events/local-0"}
    assert s3.objects["data/r/spark/trials/part-0"] == "A,B"
    conf = json.loads((tmp_path / "conf.json").read_text())
    assert conf["spark.eventLog.enabled"] == "true"
    # JVM and Python beside the heap need their share of the container.
    assert conf["spark.driver.memory"] == "2457m"


@pytest.mark.usefixtures("path")
def test_run_again_takes_the_place_of_what_an_earlier_one_wrote(launcher: ModuleType) -> None:
    kept = {"data/r/spark/program.py": "", "data/r/spark/trials-of-others": "", "data/r/prepared/a": ""}
    s3 = S3({"data/t.csv": "a,b", **kept})
    for part in (1, 2):
        s3.objects["data/p.py"] = PROGRAM.format(code=0, part=part)
        launcher.run(options(), [], s3=s3)
    written = {key for key in s3.objects if key.startswith("data/r/")} - set(kept)
    assert written == {
        "data/r/spark/trials/part-2", "data/r/spark/events/local-1", "data/r/spark/events/local-2",
    }  # fmt: skip
    assert kept.keys() <= s3.objects.keys()


@pytest.mark.usefixtures("path")
def test_program_that_fails_fails_the_container_and_leaves_its_event_log(launcher: ModuleType) -> None:
    s3 = S3({"data/p.py": PROGRAM.format(code=3, part=1), "data/t.csv": "a,b"})
    with pytest.raises(launcher.LaunchError, match="ended with 3"):
        launcher.run(options(), [], s3=s3)
    assert "data/r/spark/events/local-1" in s3.objects


def test_machine_without_java_is_told_what_to_install(launcher: ModuleType, path: Path) -> None:
    (path / "java").unlink()
    with pytest.raises(launcher.LaunchError, match=r"no `java` on the PATH.*17 or newer"):
        launcher.run(options(), [], s3=S3({}))


@pytest.mark.usefixtures("path")
def test_place_that_is_not_in_s3_is_refused(launcher: ModuleType) -> None:
    with pytest.raises(launcher.LaunchError, match=r"/tmp/p\.py is not an S3 URI"):
        launcher.run(options(program="/tmp/p.py"), [], s3=S3({}))
