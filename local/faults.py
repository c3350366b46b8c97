"""Faults of the emulated account, for tests of what rests on it: `GET` or `PUT /_updraft/faults`, JSON."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, fields
from typing import Any

from local.efs import DelayedViews
from local.paths import LocalPaths

PATH = "/_updraft/faults"
LIFECYCLE_EVENTS = (
    "ApplicationStop", "DownloadBundle", "BeforeInstall", "Install", "AfterInstall", "ApplicationStart",
    "ValidateService",
)  # fmt: skip
THROTTLED = json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode()
INTERNAL_FAILURE = json.dumps(
    {"__type": "InternalFailure", "message": "The request processing has failed because of an unknown error."}
).encode()

MOST = {
    "ssm_throttled_share": 1,
    "sagemaker_throttled_share": 1,
    "sagemaker_creations_unanswered_share": 1,
    "efs_delay_seconds": 600,
}


@dataclass(frozen=True)
class Faults:
    """`ssm_throttled_share` of Parameter Store calls and `sagemaker_throttled_share` of SageMaker's are throttled (0 to
    1); `sagemaker_creations_unanswered_share` of SageMaker's `Create` calls is done and then answered with an internal
    error; containers see new files of EFS `efs_delay_seconds` late; the CodeDeploy agent dies in the lifecycle event
    `agent_dies_in` ("" for none); there is no instance of the types `without_capacity` for a SageMaker job."""

    ssm_throttled_share: float = 0.0
    efs_delay_seconds: float = 0.0
    agent_dies_in: str = ""
    without_capacity: tuple[str, ...] = ()
    sagemaker_throttled_share: float = 0.0
    sagemaker_creations_unanswered_share: float = 0.0


class FaultSwitch:
    """The faults that are on."""

    def __init__(self, paths: LocalPaths) -> None:
        self.now = Faults()
        self._views = DelayedViews(paths)
        # What an account that was killed with a fault on left behind.
        self._views.set_delay(0)

    def put(self, body: bytes) -> Faults:
        """Set every fault; one that isn't named is off. Raises ValueError with what is wrong."""
        faults = parse(body)
        if faults.efs_delay_seconds != self.now.efs_delay_seconds:
            self._views.set_delay(faults.efs_delay_seconds)
        self.now = faults
        return faults

    def throttles(self, target: str) -> bool:
        """Whether a call with this `X-Amz-Target` is throttled now."""
        shares = {"AmazonSSM": self.now.ssm_throttled_share, "SageMaker": self.now.sagemaker_throttled_share}
        return _happens(shares.get(target.partition(".")[0], 0))

    def leaves_unanswered(self, target: str) -> bool:
        """Whether a call with this `X-Amz-Target` is done, and its answer lost, now."""
        return target.startswith("SageMaker.Create") and _happens(
            self.now.sagemaker_creations_unanswered_share
        )

    def document(self) -> dict[str, Any]:
        """The faults as JSON has them."""
        return asdict(self.now)


def _happens(share: float) -> bool:
    return share > 0 and random.random() < share


def parse(body: bytes) -> Faults:
    """The faults of a request; raises ValueError naming each mistake."""
    content = json.loads(body or b"{}")
    if not isinstance(content, dict):
        raise ValueError(f"a JSON object is wanted, came {content!r}")
    known = [field.name for field in fields(Faults)]
    mistakes = [f"{name}: there are {', '.join(known)}" for name in content if name not in known]
    for name, most in MOST.items():
        value = content.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            mistakes.append(f"{name}: 0 to {most}, came {value!r}")
    if content.get("agent_dies_in", "") not in ("", *LIFECYCLE_EVENTS):
        mistakes.append(
            f"agent_dies_in: one of {', '.join(LIFECYCLE_EVENTS)}, came {content['agent_dies_in']!r}"
        )
    types = content.get("without_capacity", [])
    if not isinstance(types, list) or not all(isinstance(each, str) for each in types):
        mistakes.append(f"without_capacity: a list of instance types, came {types!r}")
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return Faults(**content | {"without_capacity": tuple(types)})
