"""checkov's findings, and the waivers that cover them."""

import json
from pathlib import Path
from typing import Any

import pytest

from ops.bootstrap import CHECKOV, environment_python
from stacks.rules import Waiver
from stacks.rules import unwaived as of_synthesis
from stacks.scanning import scan, unwaived

PROGRAM = environment_python(CHECKOV).with_name("checkov")
PATHS = {("p-dev-storage", "Logs1"): "p-dev-storage/Logs/Resource"}
OPEN_BUCKET = {
    "Resources": {
        "Open": {
            "Type": "AWS::S3::Bucket",
            "Properties": {"AccessControl": "PublicRead"},
            "Metadata": {"aws:cdk:path": "p-dev-storage/Open/Resource"},
        }
    }
}


def report(check: str) -> dict[str, Any]:
    found = {
        "check_id": check,
        "check_name": "what it asks",
        "file_path": "/p-dev-storage.template.json",
        "resource": "AWS::S3::Bucket.Logs1",
    }
    return {"results": {"failed_checks": [found]}}


def waiver(rule: str, path: str = "p-dev-storage/Logs/Resource") -> Waiver:
    return Waiver(path, rule, "for a reason")


def test_finding_is_told_at_its_construct() -> None:
    [found] = unwaived(report("CKV_AWS_18"), PATHS, [])
    assert str(found) == "CKV_AWS_18 at p-dev-storage/Logs/Resource: what it asks"


@pytest.mark.parametrize("rule", ["CKV_AWS_18", "NIST.800.53.R5-S3BucketLoggingEnabled"])
def test_waiver_of_the_same_question_beside_the_resource_covers_it(rule: str) -> None:
    assert list(unwaived(report("CKV_AWS_18"), PATHS, [waiver(rule)])) == []


@pytest.mark.parametrize("other", [waiver("AwsSolutions-S10"), waiver("CKV_AWS_18", "p-dev-storage/Data")])
def test_waiver_of_something_else_covers_nothing(other: Waiver) -> None:
    assert "CKV_AWS_18 at p-dev-storage/Logs/Resource: what it asks" in [
        str(it) for it in unwaived(report("CKV_AWS_18"), PATHS, [other])
    ]


def test_waiver_that_checkov_does_not_need_is_a_finding_of_the_scan_alone() -> None:
    stale = waiver("CKV_AWS_1")
    assert [it.rule for it in unwaived({"results": {"failed_checks": []}}, PATHS, [stale])] == ["CKV_AWS_1"]
    assert list(of_synthesis([], [stale])) == []


@pytest.mark.skipif(not PROGRAM.exists(), reason="./updraft synth --strict makes checkov's environment")
def test_checkov_finds_a_public_bucket(tmp_path: Path) -> None:
    (tmp_path / "p-dev-storage.template.json").write_text(json.dumps(OPEN_BUCKET))
    assert "CKV_AWS_20" in {it.rule for it in scan(PROGRAM, tmp_path, hardened=False)}


@pytest.mark.skipif(not PROGRAM.exists(), reason="./updraft synth --strict makes checkov's environment")
def test_scan_that_reads_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "p-dev-storage.template.json").write_text("not JSON")
    with pytest.raises(RuntimeError, match="checkov"):
        scan(PROGRAM, tmp_path, hardened=False)
