"""The SageMaker API: requests are held against the model, names are unique, unknown things are refused."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.sagemaker.instance import last_value
from local.sagemaker.service import SageMakerError, SageMakerService
from local.sagemaker.serving import batches
from local.sagemaker.store import Store
from local.sagemaker.tuning import best_trial, draw

TRAINING: dict[str, Any] = {
    "TrainingJobName": "job-1",
    "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::000000000000:role/jobs",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


@pytest.fixture
def sagemaker(tmp_path: Path) -> SageMakerService:
    return SageMakerService(Store(tmp_path / "state.json"), account_id="000000000000", region="us-east-1")


def test_training_is_recorded_in_progress_with_its_tags(sagemaker: SageMakerService) -> None:
    arn = sagemaker.call("CreateTrainingJob", TRAINING | {"Tags": [{"Key": "a", "Value": "b"}]})[
        "TrainingJobArn"
    ]
    job = sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "job-1"})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("InProgress", "Starting")
    assert sagemaker.call("ListTags", {"ResourceArn": arn})["Tags"] == [{"Key": "a", "Value": "b"}]


def test_name_that_is_taken_is_in_use(sagemaker: SageMakerService) -> None:
    sagemaker.call("CreateTrainingJob", TRAINING)
    with pytest.raises(SageMakerError) as refused:
        sagemaker.call("CreateTrainingJob", TRAINING)
    assert refused.value.code == "ResourceInUse"


def test_stop_is_taken_once(sagemaker: SageMakerService) -> None:
    sagemaker.call("CreateTrainingJob", TRAINING)
    for _ in range(2):
        sagemaker.call("StopTrainingJob", {"TrainingJobName": "job-1"})
        assert (
            sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "job-1"})["TrainingJobStatus"]
            == "Stopping"
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"TrainingJobName": "no_underscores"}, "regular expression pattern"),
        ({"TrainingJobName": "x" * 64}, "length less than or equal to 63"),
        (
            {"ResourceConfig": {"InstanceType": "ml.none", "InstanceCount": 1, "VolumeSizeInGB": 1}},
            "enum value set",
        ),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": "soon"}}, "Invalid type for parameter"),
        ({"Gpu": True}, "unknown property Gpu"),
    ],
)
def test_request_that_breaks_the_model_is_refused(
    sagemaker: SageMakerService, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SageMakerError, match=reason) as refused:
        sagemaker.call("CreateTrainingJob", TRAINING | change)
    assert refused.value.code == "ValidationException"


def test_operation_that_is_not_emulated_is_refused(sagemaker: SageMakerService) -> None:
    with pytest.raises(SageMakerError, match="CreateMlflowApp is not available"):
        sagemaker.call("CreateMlflowApp", {"Name": "m"})


def test_model_packages_are_versions_of_a_group_and_a_token_makes_one(sagemaker: SageMakerService) -> None:
    sagemaker.call("CreateModelPackageGroup", {"ModelPackageGroupName": "g"})
    request = {"ModelPackageGroupName": "g", "ClientToken": "one"}
    first, again = (
        sagemaker.call("CreateModelPackage", request),
        sagemaker.call("CreateModelPackage", request),
    )
    second = sagemaker.call("CreateModelPackage", request | {"ClientToken": "two"})
    assert first == again
    assert second["ModelPackageArn"].endswith("model-package/g/2")
    with pytest.raises(SageMakerError, match="still contains"):
        sagemaker.call("DeleteModelPackageGroup", {"ModelPackageGroupName": "g"})


def test_training_that_has_ended_can_not_be_stopped(sagemaker: SageMakerService) -> None:
    sagemaker.call("CreateTrainingJob", TRAINING)
    sagemaker._store.of("TrainingJob")["job-1"]["TrainingJobStatus"] = "Stopped"
    with pytest.raises(SageMakerError, match="the training job is in status Stopped"):
        sagemaker.call("StopTrainingJob", {"TrainingJobName": "job-1"})


def test_job_that_was_answered_is_on_disk(sagemaker: SageMakerService, tmp_path: Path) -> None:
    sagemaker.call("CreateTrainingJob", TRAINING)
    assert list(Store(tmp_path / "state.json").of("TrainingJob")) == ["job-1"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds above 0 is required"),
        (
            {"ExperimentConfig": {"ExperimentName": "e"}},
            "ExperimentConfig is not available in the local account; leave it out",
        ),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}},
            "ResourceConfig.InstanceCount 2 is not available in the local account; it has 1",
        ),
        ({"AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "Pipe"}}, "Pipe"),
        ({"HyperParameters": {str(number): "" for number in range(101)}}, "length less than or equal to 100"),
    ],
    ids=["spot", "experiment", "instances", "pipe", "too many"],
)
def test_setting_that_would_be_ignored_is_refused(
    sagemaker: SageMakerService, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SageMakerError, match=reason):
        sagemaker.call("CreateTrainingJob", TRAINING | change)


PLAN = "arn:aws:sagemaker:us-east-1:000000000000:training-plan/mine"


def listed(sagemaker: SageMakerService, **request: Any) -> tuple[list[str], str | None]:
    answer = sagemaker.call("ListTrainingJobs", request)
    return [job["TrainingJobName"] for job in answer["TrainingJobSummaries"]], answer.get("NextToken")


def test_list_gives_every_job_once_over_its_pages(sagemaker: SageMakerService) -> None:
    names = [f"job-{number}" for number in range(5)]
    for name in names:
        sagemaker.call("CreateTrainingJob", TRAINING | {"TrainingJobName": name})
    found, token = listed(sagemaker, MaxResults=2)
    while token:
        more, token = listed(sagemaker, MaxResults=2, NextToken=token)
        found += more
    assert found == names
    assert listed(sagemaker, SortBy="Name", SortOrder="Descending")[0] == names[::-1]
    assert listed(sagemaker, NameContains="-3")[0] == ["job-3"]
    assert listed(sagemaker, StatusEquals="Failed")[0] == []
    assert listed(sagemaker, CreationTimeAfter=4_000_000_000)[0] == []


@pytest.mark.parametrize("request_", [{"NextToken": "x"}, {"TrainingPlanArnEquals": PLAN}])
def test_list_that_can_not_be_answered_is_refused(
    sagemaker: SageMakerService, request_: dict[str, Any]
) -> None:
    with pytest.raises(SageMakerError):
        sagemaker.call("ListTrainingJobs", request_)


@pytest.mark.parametrize(
    ("regex", "text", "value"),
    [
        ("auc=(.*)", "auc=0.1\nauc=0.2", 0.2),
        ("auc=(.*)", "auc=high", None),
        ("auc=(.*)", "auc=nan", None),
        ("auc", "auc", None),
        ("([", "auc", None),
        ("auc=(.*)", "", None),
    ],
)
def test_metric_is_the_last_number_that_the_regex_captured(
    regex: str, text: str, value: float | None
) -> None:
    assert last_value(regex, text) == value


@given(seed=st.integers(), low=st.floats(0.01, 1), width=st.floats(0.01, 10))
def test_drawn_values_lie_in_their_ranges(seed: int, low: float, width: float) -> None:
    ranges = {
        "IntegerParameterRanges": [{"Name": "depth", "MinValue": "3", "MaxValue": "8"}],
        "ContinuousParameterRanges": [
            {
                "Name": "eta",
                "MinValue": repr(low),
                "MaxValue": repr(low + width),
                "ScalingType": "Logarithmic",
            }
        ],
        "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
    }
    drawn = draw(ranges, random.Random(seed))
    assert 3 <= int(drawn["depth"]) <= 8
    assert low * 0.999 <= float(drawn["eta"]) <= (low + width) * 1.001
    assert drawn["kind"] in ("a", "b")


def trial(name: str, value: float | None) -> dict[str, Any]:
    metrics = [] if value is None else [{"MetricName": "auc", "Value": value}]
    times = dict.fromkeys(("CreationTime", "TrainingStartTime", "TrainingEndTime"), 0)
    return {
        "TrainingJobName": name,
        "TrainingJobArn": name,
        "TrainingJobStatus": "Completed",
        "FinalMetricDataList": metrics,
        "_tuned": {},
        **times,
    }


def test_best_trial_follows_the_objectives_direction() -> None:
    trials = [trial("a", 0.6), trial("b", 0.8), trial("c", None)]
    best = best_trial(trials, {"Type": "Maximize", "MetricName": "auc"})
    worst = best_trial(trials, {"Type": "Minimize", "MetricName": "auc"})
    assert best is not None
    assert worst is not None
    assert (best["TrainingJobName"], worst["TrainingJobName"]) == ("b", "a")
    assert best_trial([trial("c", None)], {"Type": "Maximize", "MetricName": "auc"}) is None


@given(
    lines=st.lists(
        st.binary(min_size=1, max_size=30).filter(lambda b: b"\n" not in b and b"\r" not in b and b.strip()),
        max_size=50,
    ),
    most=st.integers(31, 200),
)
def test_batches_lose_no_line_and_stay_small(lines: list[bytes], most: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    found = batches(data, "Line", "MultiRecord", most)
    assert b"".join(found) == data
    assert all(len(batch) <= most for batch in found)


def test_trials_of_a_tuning_job_are_listed_with_their_objectives(sagemaker: SageMakerService) -> None:
    definition = {key: value for key, value in TRAINING.items() if key != "TrainingJobName"}
    metrics = [{"Name": "auc", "Regex": "auc=(.*)"}]
    sagemaker.call(
        "CreateHyperParameterTuningJob",
        {
            "HyperParameterTuningJobName": "search",
            "HyperParameterTuningJobConfig": {
                "Strategy": "Random",
                "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "auc"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": 3, "MaxParallelTrainingJobs": 3},
                "ParameterRanges": {
                    "IntegerParameterRanges": [{"Name": "depth", "MinValue": "3", "MaxValue": "8"}]
                },
            },
            "TrainingJobDefinition": definition
            | {"AlgorithmSpecification": TRAINING["AlgorithmSpecification"] | {"MetricDefinitions": metrics}},
        },
    )
    search = sagemaker._store.of("HyperParameterTuningJob")["search"]
    for name, value in (("a", 0.6), ("b", 0.8), ("c", None)):
        sagemaker._store.of("TrainingJob")[name] = trial(name, value)
        search["_trials"].append(name)
    listed = sagemaker.call(
        "ListTrainingJobsForHyperParameterTuningJob", {"HyperParameterTuningJobName": "search"}
    )["TrainingJobSummaries"]
    assert {each["TrainingJobName"]: each["ObjectiveStatus"] for each in listed} == {
        "a": "Succeeded",
        "b": "Succeeded",
        "c": "Failed",
    }
    best = sagemaker.call(
        "ListTrainingJobsForHyperParameterTuningJob",
        {
            "HyperParameterTuningJobName": "search",
            "SortBy": "FinalObjectiveMetricValue",
            "SortOrder": "Descending",
            "MaxResults": 1,
        },
    )
    assert [each["TrainingJobName"] for each in best["TrainingJobSummaries"]] == ["b"]
    assert best["NextToken"] == "1"
