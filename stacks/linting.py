"""cfn-lint over the synthesized templates: CloudFormation's own schemas and limits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Ignored everywhere: no change of ours at one resource could mend what they find.
IGNORED = {
    "W3005": "CDK repeats in DependsOn what a reference says already",
    "W3010": "an environment names its zones, so that synthesizing asks nobody",
    "W3691": "it takes a major version for withdrawn with the first of its minor ones; a rule of ours looks at versions",
    "W6001": "an output may repeat what another stack exports: the command line reads outputs by stack",
}


def lint(templates: Sequence[Path], region: str) -> list[str]:
    """One line for each finding of cfn-lint; seconds for an environment, so it runs beside the synthesis."""
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", "--regions", region]
        + ["--ignore-checks", *IGNORED, "--", *map(str, sorted(templates))],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(ran.stdout or "[]")
    except json.JSONDecodeError as error:
        raise RuntimeError(f"cfn-lint failed with {ran.returncode}: {ran.stderr[-500:]}") from error
    return [
        f"{item['Rule']['Id']} at {Path(item['Filename']).name.split('.')[0]}/"
        f"{'/'.join(str(part) for part in item['Location']['Path'] or [])}: {item['Message']}"
        for item in found
    ]
