"""`security-doc`: docs/security.md, from the stacks as they are."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

import typer

from ops.bootstrap import ROOT, TOOLS, environment_python
from ops.console import Json, OperatorError, show, step

DOCUMENT = Path("docs") / "security.md"
# The smaller environment first: the page lists the roles of the last one.
ENVIRONMENTS = ("dev", "prod")


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(name="security-doc")(security_doc)


def security_doc(as_json: Json = False) -> None:
    """Write docs/security.md: every waiver with its reason, every wildcard, what each role may do."""
    from stacks.security_doc import render

    with step("synthesizing dev and prod"), tempfile.TemporaryDirectory() as directory:
        assemblies = {name: _synthesize(name, Path(directory) / name) for name in ENVIRONMENTS}
        text = render(assemblies)
    (ROOT / DOCUMENT).write_text(text, encoding="utf-8")
    show({"document": str(DOCUMENT), "lines": len(text.splitlines())}, as_json, str(DOCUMENT))


def _synthesize(environment: str, assembly: Path) -> Path:
    """Without the CDK CLI, which would want an account."""
    python = environment_python(TOOLS)
    context = json.loads((ROOT / "cdk.json").read_text())["context"] | {"environment": environment}
    ran = subprocess.run(
        [python, "app.py"],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "CDK_OUTDIR": str(assembly),
            "CDK_CONTEXT_JSON": json.dumps(context),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise OperatorError(f"{environment} doesn't synthesize:\n{ran.stderr[-2000:]}")
    return assembly
