"""`synth`, `diff`, `deploy`, `destroy`: the stacks of an environment, through the real CDK CLI."""

from __future__ import annotations

from typing import Annotated

import typer

from ops.console import Environment, Json, OperatorError, show, step


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(synth)
    app.command()(diff)
    app.command()(deploy)
    app.command()(destroy)


def synth(
    environment: Environment = "local",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Hold them against checkov too; its own environment is made once."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check an environment's file, synthesize its stacks, and hold them against every rule and cfn-lint."""
    from ops import cdk
    from ops.bootstrap import CHECKOV, ensure_environment
    from ops.target import target_of
    from stacks.linting import lint
    from stacks.scanning import scan

    target = target_of(environment)
    with step("synthesizing the stacks"):
        assembly = cdk.synth(target)
    templates = sorted(path.name for path in assembly.glob("*.template.json"))
    with step("linting the templates"):
        findings = lint([assembly / name for name in templates], target.config.region)
    if findings:
        raise OperatorError("cfn-lint finds\n  " + "\n  ".join(findings))
    if strict:
        program = ensure_environment(CHECKOV).with_name("checkov")
        with step("scanning the templates"):
            violations = scan(program, assembly, hardened=target.config.hardened)
        if violations:
            raise OperatorError("checkov finds\n  " + "\n  ".join(map(str, violations)))
    show(
        {"environment": environment, "assembly": str(assembly), "templates": templates},
        as_json,
        str(assembly),
    )


def diff(environment: Environment = "local", as_json: Json = False) -> None:
    """Show what a deployment would change."""
    from ops import cdk
    from ops.target import target_of

    target = target_of(environment)
    cdk.synth(target)
    differences = cdk.diff(target)
    show({"environment": environment, "differences": differences}, as_json, differences)


def deploy(environment: Environment = "local", as_json: Json = False) -> None:
    """Deploy an environment, waking it first. On AWS this makes what you pay for; see docs/cost.md."""
    from ops import architecture, cdk, exports, laptop, sleeping
    from ops.target import target_of

    target = target_of(environment)
    if target.is_local:
        result = laptop.up(environment)
        show(result, as_json, f"Deployed in {result['deploy_seconds']} s.")
        return
    with step("synthesizing the stacks"):
        assembly = cdk.synth(target)
    architecture.require_buildable(assembly, environment)
    sleeping.ensure_awake_if_deployed(target)
    if first := exports.importers_of_removed(target.client("cloudformation"), assembly, target.prefix):
        with step(f"deploying what uses things that are removed: {', '.join(first)}"):
            cdk.deploy(target, only=first)
    with step("deploying the stacks"):
        cdk.deploy(target)
    show({"environment": environment, "outputs": target.outputs}, as_json, "Deployed.")


def destroy(
    environment: Environment = "local",
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    as_json: Json = False,
) -> None:
    """Destroy an environment's stacks. What its file protects (a prod database) stays."""
    from ops import cdk, teardown
    from ops.target import target_of

    target = target_of(environment)
    if not yes and not typer.confirm(f"Destroy every stack of {target.prefix}?", err=True):
        raise OperatorError("nothing was destroyed")
    with step("synthesizing the stacks"):
        cdk.synth(target)
    # Its functions start workers, and services on waking; no other stack needs it.
    with step("destroying what starts workers"):
        cdk.destroy(target, only=[f"{target.prefix}-scaling"])
    with step("stopping what runs"):
        teardown.stop_tasks(target)
    # Not before: a task writes its log into the bucket when it ends.
    if not target.config.keep_data_on_destroy:
        with step("emptying buckets and the model registry"):
            teardown.empty(target)
    with step("destroying the stacks"):
        cdk.destroy(target)
    teardown.delete_parameters(target)
    show({"environment": environment, "destroyed": True}, as_json, "Destroyed.")
