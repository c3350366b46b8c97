"""How long logs are kept: CDK names what CloudWatch counts in days."""

from __future__ import annotations

from aws_cdk import aws_logs as logs

from stacks.config import EnvironmentConfig

NAMES = {
    1: "ONE_DAY", 3: "THREE_DAYS", 5: "FIVE_DAYS", 7: "ONE_WEEK", 14: "TWO_WEEKS", 30: "ONE_MONTH",
    60: "TWO_MONTHS", 90: "THREE_MONTHS", 120: "FOUR_MONTHS", 150: "FIVE_MONTHS", 180: "SIX_MONTHS",
    365: "ONE_YEAR", 400: "THIRTEEN_MONTHS", 545: "EIGHTEEN_MONTHS", 731: "TWO_YEARS",
}  # fmt: skip


def retention(config: EnvironmentConfig) -> logs.RetentionDays:
    """The environment's log retention."""
    return logs.RetentionDays[NAMES[config.log_retention_days]]
