"""checkov over the synthesized templates: a second opinion, from rules that neither cdk-nag nor we have written.

It fits in no environment beside anything else, so its program is given; `./updraft synth --strict` runs it.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stacks.rules import CHECKOV as OWN
from stacks.rules import Violation, Waiver, construct_paths, waivers

# Asked of every resource of a kind, and answered once.
SKIPPED = {
    "CKV_AWS_27": "It looks for a customer's key alone; SQS encrypts every queue with its own, and cdk-nag asks that it does",
    "CKV_AWS_173": "A function's variables are names and addresses, which Lambda encrypts with a key of AWS's own; what is secret it reads from Secrets Manager",
}
# Asked of a hardened environment only, as cdk-nag does: an open one may buy less.
HARDENED = ("CKV_AWS_88", "CKV_AWS_118")
# What checkov asks as well as cdk-nag: a waiver beside a resource holds for both.
ALSO_ASKED_BY = {
    "CKV_AWS_187": "AwsSolutions-SM2",
    "CKV_AWS_65": "AwsSolutions-ECS4",
    "CKV_AWS_157": "AwsSolutions-RDS3",
    "CKV_AWS_18": "NIST.800.53.R5-S3BucketLoggingEnabled",
    "CKV_AWS_26": "NIST.800.53.R5-SNSEncryptedKMS",
    "CKV_AWS_109": "AwsSolutions-IAM5",
    "CKV_AWS_111": "AwsSolutions-IAM5",
    "CKV_AWS_115": "NIST.800.53.R5-LambdaConcurrency",
    "CKV_AWS_116": "NIST.800.53.R5-LambdaDLQ",
    "CKV_AWS_117": "NIST.800.53.R5-LambdaInsideVPC",
    "CKV_AWS_149": "NIST.800.53.R5-SecretsManagerUsingKMSKey",
    "CKV_AWS_158": "NIST.800.53.R5-CloudWatchLogGroupEncrypted",
}


def scan(program: Path, assembly: Path, *, hardened: bool) -> list[Violation]:
    """What checkov finds in an assembly's templates and no waiver covers; raises RuntimeError when it can't look."""
    files = [word for path in sorted(assembly.glob("*.template.json")) for word in ("--file", str(path))]
    options = ["--framework", "cloudformation", "--skip-download", "--compact", "--quiet", "--output", "json"]
    skipped = [*SKIPPED, *(() if hardened else HARDENED)]
    # It writes beside what it looks at, and into its caller's home.
    with tempfile.TemporaryDirectory(prefix="updraft-checkov-") as home:
        ran = subprocess.run(
            [str(program), *files, *options, "--skip-check", ",".join(skipped)],
            cwd=home,
            env={**os.environ, "HOME": home, "LOG_LEVEL": "ERROR"},
            capture_output=True,
            text=True,
            check=False,
        )
    try:
        report = json.loads(ran.stdout)
        unread = report["summary"]["parsing_errors"]
    except (ValueError, TypeError, KeyError) as error:
        raise RuntimeError(f"checkov failed with {ran.returncode}: {ran.stderr[-500:]}") from error
    if unread:
        raise RuntimeError(f"checkov could not read {unread} of the templates in {assembly}")
    return list(unwaived(report, construct_paths(assembly), list(waivers(assembly))))


def unwaived(
    report: dict[str, Any], paths: dict[tuple[str, str], str], waived: list[Waiver]
) -> Iterator[Violation]:
    """A report's findings by construct path, less what is waived beside its resource; then waivers of nothing."""
    used: set[Waiver] = set()
    for item in report["results"]["failed_checks"]:
        stack = Path(item["file_path"]).name.split(".")[0]
        path = paths.get((stack, item["resource"].rpartition(".")[2]), stack)
        rule = item["check_id"]
        # A waiver of one finding of a rule, in brackets, says as much of the resource as checkov asks.
        asked = {rule, ALSO_ASKED_BY.get(rule, rule)}
        covering = [it for it in waived if it.path == path and it.rule.split("[")[0] in asked]
        used.update(covering)
        if not covering:
            yield Violation(path, rule, item["check_name"])
    for waiver in waived:
        if waiver.rule.startswith(OWN) and waiver not in used:
            yield Violation(
                waiver.path, waiver.rule, "is waived, but nothing is found here: remove the waiver"
            )
