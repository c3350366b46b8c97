"""What is made of the local account's record."""

from typing import Any

from ops.permissions import Call, Grant, reasons, review
from stacks.aws_rules import reference

PREFIX = "updraft-local"
ROLE = "updraft-local-airflow-TaskRole"


def call(
    verdict: str, action: str, *, resource: str = "*", grant: str = "", role: str = ROLE
) -> dict[str, Any]:
    arn = f"arn:aws:iam::000000000000:role/{role}"
    return {
        "role": arn, "action": action, "resource": resource, "verdict": verdict, "grant": grant, "count": 1
    }  # fmt: skip


def record(*calls: dict[str, Any], grants: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    of_role = [{"action": action, "resource": resource} for action, resource in grants]
    return {"calls": list(calls), "grants": {f"arn:aws:iam::000000000000:role/{ROLE}": of_role}}


def test_denied_call_is_missing() -> None:
    found = review(record(call("denied", "s3:GetObject", resource="arn:aws:s3:::a/b")), PREFIX)
    assert found.missing == (Call(ROLE, "s3:GetObject", "arn:aws:s3:::a/b", 1),)


def test_grant_on_a_resource_is_none_for_an_action_that_takes_none() -> None:
    found = review(record(call("untold", "sagemaker:ListTrainingJobs")), PREFIX)
    assert [it.action for it in found.missing] == ["sagemaker:ListTrainingJobs"]


def test_request_that_tells_no_resource_is_given_the_benefit_of_the_doubt() -> None:
    assert review(record(call("untold", "sagemaker:ListModelPackages")), PREFIX).missing == ()


def test_roles_of_others_are_left_alone() -> None:
    assert review(record(call("denied", "s3:GetObject", role="cdk-deploy")), PREFIX).calls == 0


def test_grant_that_no_call_needed_is_unused() -> None:
    grants = (("s3:GetObject", "arn:aws:s3:::a/*"), ("s3:PutObject", "arn:aws:s3:::a/*"))
    used = call("allowed", "s3:GetObject", resource="arn:aws:s3:::a/b", grant="arn:aws:s3:::a/*")
    found = review(record(used, grants=grants), PREFIX)
    [grant] = found.unused
    assert (grant.action, grant.resource) == ("s3:PutObject", "arn:aws:s3:::a/*")
    assert grant.because
    assert (found.missing, found.unexplained) == ((), ())


def test_unused_grant_without_a_reason_is_told() -> None:
    found = review(record(call("allowed", "s3:GetObject"), grants=(("iam:CreateUser", "*"),)), PREFIX)
    assert found.unexplained == (Grant(ROLE, "iam:CreateUser", "*"),)


def test_grant_that_no_request_can_need_is_none() -> None:
    model = "arn:aws:sagemaker:us-east-1:000000000000:model/updraft-local-*"
    found = review(
        record(call("allowed", "s3:GetObject"), grants=(("sagemaker:StopTrainingJob", model),)), PREFIX
    )
    assert found.unused == ()


def test_every_reason_is_of_actions_that_aws_knows() -> None:
    named = {action for reason in reasons() for action in reason.actions if "*" not in action}
    assert named
    assert [action for action in sorted(named) if not reference.is_action(action)] == []
