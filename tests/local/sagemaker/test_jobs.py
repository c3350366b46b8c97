"""Jobs that really run: what goes in, what comes out, and how they end."""

import io
import itertools
import json
import tarfile
from typing import Any

import pytest

from local import processes
from local.account.json_api import ApiError
from local.sagemaker.service import SageMakerError
from tests.local.sagemaker.hosting import IMAGE, Host, wait_until

pytestmark = pytest.mark.account

ROLE = "arn:aws:iam::000000000000:role/jobs"
INSTANCE = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
LOGS = "/aws/sagemaker/TrainingJobs"
names = (f"job-{number}" for number in itertools.count())

LEARN = """
import json, os, sys
root = os.environ["ML_ROOT"]
rows = open(f"{root}/input/data/train/sub/rows.csv").read()
parameters = json.load(open(f"{root}/input/config/hyperparameters.json"))
print("argument", sys.argv[1], "rows", len(rows), "eta", parameters.get("eta"))
print("validation-auc=0.5")
print("validation-auc=0.75")
open(f"{root}/model/model.txt", "w").write(rows)
print("last words")
"""
SLEEP = """
import os, signal, sys, time
def leave(*_):
    open(os.environ["ML_ROOT"] + "/model/saved", "w").write("at SIGTERM")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("awake", flush=True)
while True:
    time.sleep(0.1)
"""


def training(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "auc", "Regex": "validation-auc=([0-9.]+)"}],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://data/models"},
        "ResourceConfig": INSTANCE,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    } | changes


def channel(uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": "train", "DataSource": {"S3DataSource": source}}


def unpacked(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        return {
            item.name: handle.read() for item in files.getmembers() if (handle := files.extractfile(item))
        }


def passed(job: dict[str, Any]) -> list[str]:
    """The secondary statuses that a training has gone through, each of them with its end."""
    transitions = job["SecondaryStatusTransitions"]
    assert all(each["EndTime"] >= each["StartTime"] for each in transitions)
    return [each["Status"] for each in transitions]


def test_training_learns_from_its_channel_and_leaves_a_model(host: Host) -> None:
    host.program(LEARN)
    host.put("learn/sub/rows.csv", b"1,2\n")
    name = next(names)
    host.service.call(
        "CreateTrainingJob",
        training(name, InputDataConfig=[channel("s3://data/learn/")], HyperParameters={"eta": "0.1"}),
    )
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job.get("FailureReason")) == ("Completed", None)
    assert unpacked(host.get(job["ModelArtifacts"]["S3ModelArtifacts"])) == {"model.txt": b"1,2\n"}
    assert [(item["MetricName"], item["Value"]) for item in job["FinalMetricDataList"]] == [("auc", 0.75)]
    assert passed(job)[-4:] == ["Downloading", "Training", "Uploading", "Completed"]
    assert job["BillableTimeInSeconds"] >= 1


def test_every_line_of_a_job_reaches_its_log_stream(host: Host) -> None:
    host.program(LEARN + "\nprint('no newline', end='')")
    host.put("learn/sub/rows.csv", b"1,2\n")
    name = next(names)
    host.service.call("CreateTrainingJob", training(name, InputDataConfig=[channel("s3://data/learn")]))
    host.ended("TrainingJob", name)
    assert host.logged(LOGS, name)[0] == "argument train rows 4 eta None"
    assert host.logged(LOGS, name)[-2:] == ["last words", "no newline"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import sys; print('no such column'); sys.exit(3)", "no such column, exit code: 3"),
        (
            "import os, sys; open(os.environ['ML_ROOT'] + '/output/failure', 'w').write('bad eta'); sys.exit(1)",
            "AlgorithmError: bad eta, exit code: 1",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit code: 137"),
    ],
)
def test_failing_script_fails_the_job_with_its_reason(host: Host, source: str, reason: str) -> None:
    host.program(source)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert passed(job) == ["Downloading", "Training", "Failed"]
    assert reason in job["FailureReason"]


@pytest.mark.parametrize(
    ("regex", "values"),
    [("auc=(([0-9.]+))", [0.5]), ("auc=([0-9.]+)|other", [0.5]), ("(auc)", []), ("([", [])],
)
def test_odd_metric_regex_never_costs_the_model(host: Host, regex: str, values: list[float]) -> None:
    host.program("print('auc=0.5'); print('other')")
    name = next(names)
    request = training(name)
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "auc", "Regex": regex}]
    host.service.call("CreateTrainingJob", request)
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job.get("FailureReason")) == ("Completed", None)
    assert [item["Value"] for item in job.get("FinalMetricDataList", [])] == values


def test_empty_channel_fails_the_job(host: Host) -> None:
    name = next(names)
    host.service.call("CreateTrainingJob", training(name, InputDataConfig=[channel("s3://data/nothing/")]))
    assert "No S3 objects found" in host.ended("TrainingJob", name)["FailureReason"]


def test_stopped_training_keeps_what_it_saved(host: Host) -> None:
    host.program(SLEEP)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    host.reached(name, "Training")
    host.wait_for_line(LOGS, name, "awake")
    host.service.call("StopTrainingJob", {"TrainingJobName": name})
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert passed(job)[-2:] == ["Uploading", "Stopped"]
    assert unpacked(host.get(job["ModelArtifacts"]["S3ModelArtifacts"])) == {"saved": b"at SIGTERM"}


def test_training_beyond_its_limit_is_stopped(host: Host) -> None:
    host.program(SLEEP)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name, StoppingCondition={"MaxRuntimeInSeconds": 2}))
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert passed(job)[-1] == "MaxRuntimeExceeded"
    assert job["BillableTimeInSeconds"] < 10


def test_checkpoints_of_a_failed_job_are_there_for_the_next(host: Host) -> None:
    host.program(
        "import os, pathlib, sys\n"
        "file = pathlib.Path(os.environ['ML_ROOT'], 'checkpoints', 'round')\n"
        "done = int(file.read_text()) if file.exists() else 0\n"
        "file.write_text(str(done + 1))\n"
        "print('resumed at', done)\n"
        "sys.exit(done == 0)\n"
    )
    first, second = next(names), next(names)
    checkpoints = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints/a"}}
    host.service.call("CreateTrainingJob", training(first, **checkpoints))
    assert host.ended("TrainingJob", first)["TrainingJobStatus"] == "Failed"
    host.service.call("CreateTrainingJob", training(second, **checkpoints))
    assert host.ended("TrainingJob", second)["TrainingJobStatus"] == "Completed"
    assert host.get("s3://data/checkpoints/a/round") == b"2"


def test_interrupted_spot_training_goes_on_from_its_checkpoint(host: Host) -> None:
    host.program(
        "import os, pathlib, signal, sys, time\n"
        "file = pathlib.Path(os.environ['ML_ROOT'], 'checkpoints', 'round')\n"
        "done = int(file.read_text()) if file.exists() else 0\n"
        "signal.signal(signal.SIGTERM, lambda *_: (file.write_text(str(done + 1)), sys.exit(0)))\n"
        "print('resumed at', done, flush=True)\n"
        "while done < 2:\n"
        "    time.sleep(0.05)\n"
    )
    name = next(names)
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120},
        "CheckpointConfig": {"S3Uri": "s3://data/checkpoints/spot"},
    }
    host.service.call("CreateTrainingJob", training(name, **spot))
    for done in (0, 1):
        host.wait_for_line(LOGS, name, f"resumed at {done}")
        host.plane.interrupt(name)
    job = host.ended("TrainingJob", name)
    assert job["TrainingJobStatus"] == "Completed"
    lost = [each for each in job["SecondaryStatusTransitions"] if each["Status"] == "Interrupted"]
    assert len(lost) == 2
    assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]
    with pytest.raises(ValueError, match="no running spot training"):
        host.plane.interrupt(name)


def test_processing_job_turns_inputs_into_outputs(host: Host) -> None:
    host.program(
        "import pathlib, sys\n"
        "source, target = map(pathlib.Path, sys.argv[1:])\n"
        "(target / 'out.csv').write_text((source / 'rows.csv').read_text().upper())\n"
    )
    host.put("raw/rows.csv", b"a,b\n")
    name = next(names)
    inputs = {"S3Uri": "s3://data/raw", "LocalPath": "/opt/ml/processing/input", "S3DataType": "S3Prefix"}
    outputs = {
        "S3Uri": "s3://data/cooked",
        "LocalPath": "/opt/ml/processing/output",
        "S3UploadMode": "EndOfJob",
    }
    host.service.call(
        "CreateProcessingJob",
        {
            "ProcessingJobName": name,
            "ProcessingInputs": [{"InputName": "raw", "S3Input": inputs}],
            "ProcessingOutputConfig": {"Outputs": [{"OutputName": "cooked", "S3Output": outputs}]},
            "ProcessingResources": {"ClusterConfig": INSTANCE},
            "AppSpecification": {
                "ImageUri": IMAGE,
                "ContainerArguments": ["/opt/ml/processing/input", "/opt/ml/processing/output"],
            },
            "RoleArn": ROLE,
        },
    )
    job = host.ended("ProcessingJob", name)
    assert (job["ProcessingJobStatus"], job.get("FailureReason")) == ("Completed", None)
    assert host.get("s3://data/cooked/out.csv") == b"A,B\n"


SERVE = """
import http.server, os, sys
model = open(os.environ["ML_ROOT"] + "/model/model.txt").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ping" else 404)
        self.end_headers()
    def do_POST(self):
        rows = self.rfile.read(int(self.headers["Content-Length"])).decode().splitlines()
        self.send_response(400 if "bad" in rows else 200)
        self.end_headers()
        self.wfile.write("".join(f"{model}{row}\\n" for row in rows).encode())
assert sys.argv[1] == "serve"
http.server.HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


def transform_of(host: Host, rows: bytes, **changes: Any) -> str:
    """Create a model and a transform job that puts `M` before every row; returns the job's name."""
    host.program(SERVE)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as files:
        info = tarfile.TarInfo("model.txt")
        info.size = 1
        files.addfile(info, io.BytesIO(b"M"))
    name = next(names)
    model = {"Image": IMAGE, "ModelDataUrl": host.put("served/model.tar.gz", buffer.getvalue())}
    host.service.call("CreateModel", {"ModelName": name, "PrimaryContainer": model, "ExecutionRoleArn": ROLE})
    source = {"S3DataType": "S3Prefix", "S3Uri": host.put(f"{name}/rows.csv", rows)}
    host.service.call(
        "CreateTransformJob",
        {
            "TransformJobName": name,
            "ModelName": name,
            "TransformInput": {"DataSource": {"S3DataSource": source}, "SplitType": "Line"},
            "TransformOutput": {"S3OutputPath": f"s3://data/{name}/out", "AssembleWith": "Line"},
            "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        }
        | changes,
    )
    return name


@pytest.mark.parametrize(
    "changes",
    [{}, {"BatchStrategy": "SingleRecord"}, {"BatchStrategy": "MultiRecord", "MaxPayloadInMB": 0}],
    ids=str,
)
def test_transform_answers_every_row_once_and_in_order(host: Host, changes: dict[str, Any]) -> None:
    name = transform_of(host, b"1\n2\n3\n", **changes)
    job = host.ended("TransformJob", name)
    assert (job["TransformJobStatus"], job.get("FailureReason")) == ("Completed", None)
    assert host.get(f"s3://data/{name}/out/rows.csv.out") == b"M1\nM2\nM3\n"


def test_row_that_the_model_refuses_fails_the_transform(host: Host) -> None:
    name = transform_of(host, b"1\nbad\n")
    assert "/invocations answered 400" in host.ended("TransformJob", name)["FailureReason"]


def tuning(name: str, **changes: Any) -> dict[str, Any]:
    definition = training("unused")
    del definition["TrainingJobName"]
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "auc"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "eta", "MinValue": "0.1", "MaxValue": "0.9"}]
            },
        }
        | changes,
        "TrainingJobDefinition": definition,
    }


def test_tuning_runs_its_trainings_and_finds_the_best(host: Host) -> None:
    host.program(
        "import json, os\n"
        "eta = json.load(open(os.environ['ML_ROOT'] + '/input/config/hyperparameters.json'))['eta']\n"
        "print(f'validation-auc={eta}')\n"
    )
    name = next(names)
    host.service.call("CreateHyperParameterTuningJob", tuning(name))
    job = host.ended("HyperParameterTuningJob", name)
    trials = list(host.store.of("TrainingJob").values())
    values = [float(item["_tuned"]["eta"]) for item in trials if item["TrainingJobName"].startswith(name)]
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["TrainingJobStatusCounters"]["Completed"] == len(values) == 4
    assert float(job["BestTrainingJob"]["TunedHyperParameters"]["eta"]) == max(values)


@pytest.mark.parametrize(
    "changes",
    [
        {"ParameterRanges": {"ContinuousParameterRanges": [{"Name": "e", "MinValue": "x", "MaxValue": "1"}]}},
        {
            "ParameterRanges": {
                "ContinuousParameterRanges": [
                    {"Name": "e", "MinValue": "0", "MaxValue": "1", "ScalingType": "Logarithmic"}
                ]
            }
        },
        {"ParameterRanges": {"IntegerParameterRanges": [{"Name": "e", "MinValue": "3", "MaxValue": "2"}]}},
        {"ParameterRanges": {}},
    ],
    ids=["no number", "logarithm of zero", "empty range", "no range"],
)
def test_tuning_that_can_not_run_is_refused(host: Host, changes: dict[str, Any]) -> None:
    with pytest.raises(SageMakerError) as refused:
        host.service.call("CreateHyperParameterTuningJob", tuning(next(names), **changes))
    assert refused.value.code == "ValidationException"


def test_transform_whose_model_was_deleted_harms_no_other_job(host: Host) -> None:
    with host.store.lock:
        doomed = transform_of(host, b"1\n")
        host.service.call("DeleteModel", {"ModelName": doomed})
    host.program("print(1)")
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    assert host.ended("TrainingJob", name)["TrainingJobStatus"] == "Completed"
    assert host.ended("TransformJob", doomed)["TransformJobStatus"] == "Failed"


def test_training_goes_on_while_the_account_is_away(host: Host) -> None:
    host.program("import time; print('awake', flush=True); time.sleep(14); print('validation-auc=0.6')")
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    host.wait_for_line(LOGS, name, "awake")
    host.vanish()
    host.emulator.kill()
    host.sleep(12)
    host.emulator.start()
    host.open()
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job.get("FailureReason")) == ("Completed", None)


def test_host_that_stops_leaves_no_process_and_says_why(host: Host) -> None:
    host.program(SLEEP)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    host.reached(name, "Training")
    host.plane.stop()
    host.open()
    job = host.ended("TrainingJob", name)
    assert job["FailureReason"] == "InternalServerError: the host was stopped"
    assert not (host.paths.sagemaker / "TrainingJob" / name).exists()


def test_restarted_host_adopts_the_process_that_runs(host: Host) -> None:
    host.program(SLEEP)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    host.wait_for_line(LOGS, name, "awake")
    before = processes.pid_of(host.paths, f"sagemaker-TrainingJob-{name}")
    host.vanish()
    host.open()
    assert before is not None
    assert processes.pid_of(host.paths, f"sagemaker-TrainingJob-{name}") == before
    host.service.call("StopTrainingJob", {"TrainingJobName": name})
    assert host.ended("TrainingJob", name)["TrainingJobStatus"] == "Stopped"


def test_host_ends_an_instance_whose_job_nobody_knows(host: Host) -> None:
    host.program(SLEEP)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    host.wait_for_line(LOGS, name, "awake")
    host.vanish()
    (host.paths.sagemaker / "state.json").unlink()
    host.open()
    assert not processes.is_running(host.paths, f"sagemaker-TrainingJob-{name}")
    assert not (host.paths.sagemaker / "TrainingJob" / name).exists()


def test_instance_that_is_killed_fails_its_job(host: Host) -> None:
    host.program(SLEEP)
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    host.wait_for_line(LOGS, name, "awake")
    pid = processes.pid_of(host.paths, f"sagemaker-TrainingJob-{name}")
    assert pid is not None
    processes.kill_session(pid)
    job = host.ended("TrainingJob", name)
    assert (job["TrainingJobStatus"], job["FailureReason"]) == (
        "Failed",
        "InternalServerError: the instance was lost",
    )


def preferring(*types: str, **changes: Any) -> dict[str, Any]:
    preferences = [{"InstanceType": each} for each in types]
    return {"InstanceCount": 1, "VolumeSizeInGB": 1, "InstancePreferences": preferences} | changes


def without_capacity(host: Host, *types: str) -> None:
    host.plane._context.faults.put(json.dumps({"without_capacity": types}).encode())


def test_training_takes_the_first_type_that_has_capacity(host: Host) -> None:
    host.program("print('validation-auc=0.6')")
    without_capacity(host, "ml.p3.2xlarge")
    name = next(names)
    config = preferring("ml.p3.2xlarge", "ml.g5.xlarge", "ml.g5.2xlarge")
    host.service.call("CreateTrainingJob", training(name, ResourceConfig=config))
    job = host.ended("TrainingJob", name)
    assert job["TrainingJobStatus"] == "Completed"
    assert (
        job["ResourceConfig"]["SelectedInstanceType"],
        job["ResourceConfig"]["SelectedInstanceCount"],
    ) == (
        "ml.g5.xlarge",
        1,
    )


def test_job_without_capacity_fails_with_sagemakers_reason(host: Host) -> None:
    without_capacity(host, "ml.m5.large")
    name = next(names)
    host.service.call("CreateTrainingJob", training(name))
    job = host.ended("TrainingJob", name)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("CapacityError: Unable to provision")
    assert "TrainingStartTime" not in job
    assert passed(job) == ["Failed"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ResourceConfig": preferring("ml.g5.xlarge", InstanceType="ml.m5.large")}, "only one of them"),
        ({"ResourceConfig": preferring("ml.g5.xlarge", "ml.g5.xlarge")}, "each type once"),
        ({"ResourceConfig": preferring(*["ml.g5.xlarge"] * 6)}, "less than or equal to 5"),
        ({"ResourceConfig": {"VolumeSizeInGB": 1, "InstancePreferences": [{"InstanceType": "ml.g5.xlarge"}]}}, "either one for all"),
        ({"ResourceConfig": {"VolumeSizeInGB": 1, "InstanceCount": 1}}, "InstanceType is required"),
        (
            {
                "ResourceConfig": preferring("ml.g5.xlarge"),
                "EnableManagedSpotTraining": True,
                "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
            },
            "not with EnableManagedSpotTraining",
        ),
    ],
)  # fmt: skip
def test_preferences_that_sagemaker_refuses_are_refused(
    host: Host, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(SageMakerError, match=says):
        host.service.call("CreateTrainingJob", training(next(names), **changes))


def warm(seconds: int) -> dict[str, Any]:
    return {"ResourceConfig": INSTANCE | {"KeepAlivePeriodInSeconds": seconds}}


def trained(host: Host, **changes: Any) -> dict[str, Any]:
    """A training that has completed."""
    name = next(names)
    host.service.call("CreateTrainingJob", training(name, **changes))
    assert host.ended("TrainingJob", name)["TrainingJobStatus"] == "Completed"
    return host.describe("TrainingJob", name)


def pools(host: Host) -> list[str]:
    found = host.service.call("ListTrainingJobs", {"WarmPoolStatusEquals": "Available"})
    return [each["TrainingJobName"] for each in found["TrainingJobSummaries"]]


def test_warm_pool_waits_for_the_next_training_of_its_kind(host: Host) -> None:
    host.program("print(1)")
    first = trained(host, **warm(600))
    assert first["WarmPoolStatus"] == {"Status": "Available"}
    assert pools(host) == [first["TrainingJobName"]]
    other = trained(host, ResourceConfig=INSTANCE | {"InstanceType": "ml.m5.xlarge"})
    assert "WarmPoolStatus" not in other
    second = trained(host, **warm(600))
    reused = host.describe("TrainingJob", first["TrainingJobName"])["WarmPoolStatus"]
    assert (reused["Status"], reused["ReusedByJob"]) == ("Reused", second["TrainingJobName"])
    assert reused["ResourceRetainedBillableTimeInSeconds"] >= 1
    assert pools(host) == [second["TrainingJobName"]]


def test_warm_pool_ends_when_it_is_told_to(host: Host) -> None:
    host.program("print(1)")
    name = trained(host, **warm(600))["TrainingJobName"]
    end = {"TrainingJobName": name, "ResourceConfig": {"KeepAlivePeriodInSeconds": 0}}
    host.service.call("UpdateTrainingJob", end)
    assert host.describe("TrainingJob", name)["WarmPoolStatus"]["Status"] == "Terminated"
    assert pools(host) == []
    with pytest.raises(ApiError, match="no warm pool that is available"):
        host.service.call("UpdateTrainingJob", end)


def test_warm_pool_ends_when_its_time_is_up(host: Host) -> None:
    host.program("print(1)")
    name = trained(host, **warm(1))["TrainingJobName"]
    wait_until(lambda: pools(host) == [], "its time is up")
    assert host.describe("TrainingJob", name)["WarmPoolStatus"]["Status"] == "Terminated"


def test_warm_pool_of_spot_instances_is_refused(host: Host) -> None:
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
    }
    with pytest.raises(SageMakerError, match="not with EnableManagedSpotTraining"):
        host.service.call("CreateTrainingJob", training(next(names), **warm(600), **spot))
