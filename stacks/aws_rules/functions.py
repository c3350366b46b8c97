"""Lambda, its schedule, delivery by CodeDeploy, and SageMaker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from stacks.aws_rules.statements import allowed, statements
from stacks.aws_rules.templates import Finding, Templates, as_list

LONGEST_SECONDS = 900
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
RUNTIMES = re.compile(r"^(python3\.1[1-4]|nodejs2[024]\.x)$")


def functions(templates: Templates) -> Iterator[Finding]:
    """Within Lambda's limits, on a runtime that new functions may have, without reserved concurrency."""
    for function in templates.of("AWS::Lambda::Function"):
        properties = function.properties
        timeout = int(properties.get("Timeout", 3))
        if timeout > LONGEST_SECONDS:
            yield function.finding("LAMBDA-TIMEOUT", f"may run for {timeout} s", "Lambda ends at 900 s")
        if "ReservedConcurrentExecutions" in properties:
            yield function.finding(
                "LAMBDA-CONCURRENCY",
                "reserves concurrency",
                "A new account has 10 in all and keeps 10 free: take a lock in the database",
            )
        runtime = properties.get("Runtime")
        if runtime is not None and not RUNTIMES.match(templates.text(function.stack, runtime)):
            # The provider framework's own is looked up by region, in a mapping that CDK keeps.
            if isinstance(runtime, dict) and "Fn::FindInMap" in runtime:
                continue
            yield function.finding("LAMBDA-RUNTIME", f"has runtime {runtime}", "Take one that AWS supports")


def schedules(templates: Templates) -> Iterator[Finding]:
    """EventBridge tries a failed target again for a day unless told not to."""
    for rule in templates.of("AWS::Events::Rule"):
        for target in as_list(rule.properties.get("Targets")):
            reached = templates.target(rule.stack, target["Arn"])
            is_function = reached is not None and reached.type == "AWS::Lambda::Function"
            if is_function and target.get("RetryPolicy", {}).get("MaximumRetryAttempts") != 0:
                yield rule.finding(
                    "EVENTS-RETRY",
                    "tries late samples again",
                    "Set MaximumRetryAttempts to 0: the next one is fresh",
                )


def delivery(templates: Templates) -> Iterator[Finding]:
    """What the hooks need on the bastion, and one pointer that hooks and DAG bundle both mean."""
    written = {
        templates.text(statement.policy.stack, resource)
        for statement in statements(templates)
        if "ssm:PutParameter" in statement.actions
        for resource in statement.resources
    }
    for definition in templates.of("AWS::ECS::TaskDefinition"):
        text = json.dumps(definition.properties).replace('\\"', '"')
        for wanted in set(re.findall(r'"pointer_parameter": "([^"]+)"', text)):
            if not any(arn.endswith(f":parameter{wanted}") for arn in written):
                yield definition.finding(
                    "DELIVERY-POINTER",
                    f"serves what {wanted} names, which nobody may write",
                    "Both sides take one name",
                )
    for instance in templates.of("AWS::EC2::Instance"):
        profile = templates.target(instance.stack, instance.properties.get("IamInstanceProfile"))
        if profile is None or not templates.of("AWS::CodeDeploy::DeploymentGroup"):
            continue
        for role in templates.targets(profile.stack, profile.properties.get("Roles")):
            for action in (
                "elasticfilesystem:ClientWrite",
                "s3:GetObject",
                "ssm:PutParameter",
                "ssmmessages:OpenDataChannel",
            ):
                if not allowed(templates, role, action):
                    yield instance.finding(
                        "DELIVERY-ROLE", f"may not {action}", "The hooks need it: allow it"
                    )
    for group in templates.of("AWS::CodeDeploy::DeploymentGroup"):
        if group.properties.get("DeploymentStyle", {}).get("DeploymentType") == "BLUE_GREEN":
            yield group.finding("DELIVERY-STYLE", "is blue/green", "There is one bastion: deploy in place")


def sage_maker(templates: Templates) -> Iterator[Finding]:
    """A notebook that CloudFormation makes bills from its first minute, and has no idle stop of its own."""
    for notebook in templates.of("AWS::SageMaker::NotebookInstance"):
        if "LifecycleConfigName" not in notebook.properties:
            yield notebook.finding(
                "SAGEMAKER-NOTEBOOK",
                "never stops by itself",
                "Give it a lifecycle configuration that stops an idle one",
            )
    for endpoint in templates.of("AWS::SageMaker::Endpoint"):
        yield endpoint.finding(
            "SAGEMAKER-ENDPOINT", "bills until it is deleted", "Make endpoints in workflows"
        )


RULES = (functions, schedules, delivery, sage_maker)
