"""### Is it a cat or a dog?

Trains a ResNet34 on pictures of pets, and brings an application around it into service: `POST /predict` with a picture
answers its label and probability.

**Schedule:** none; started by hand, by `./updraft run pet_detection`, or by the REST API with a `conf`.

**Source:** `source` names pictures in the layout of the Oxford-IIIT Pet data: an S3 prefix that the jobs' role may read
(`images/*.jpg`, `annotations/list.txt`), or an `https://` folder with `images.tar.gz` and `annotations.tar.gz`, such as
`https://www.robots.ox.ac.uk/~vgg/data/pets/data`. Without one, pictures are drawn.

**Flow:** *data_engineering*: fetch → transform (check, crop, scale, split; SageMaker uploads the three parts) →
*ml_engineering*: train (spot GPU) → validate (held-out pictures, and a baseline on the pixels) → accept → register →
build (CodeBuild) → deploy (a new task is tried with a real picture before the service moves) → clean-up.

**When it fails:** a data check names what is wrong with the source, a job its FailureReason, a gate the figures, a build
its phase. The topic of failed runs is told, the clean-up stops what is left of the run, and what served before still
serves. `wait_seconds` bounds how long the training waits for spot capacity.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task, task_group
from airflow.sdk.exceptions import AirflowSkipException

from pets import jobs
from runtime.dag_defaults import default_args, run_prefix
from runtime.notify import notify_failure
from runtime.sagemaker.operator import SageMakerJobOperator
from runtime.sagemaker.registry import read_evaluation
from runtime.settings import job_name, tags, workflow_settings

# Of the data bucket; the application's build may read below its first part (stacks/pets.py).
PREFIX = run_prefix("pets")
HYPERPARAMETERS = ("epochs", "batch_size", "learning_rate", "pretrained")


@task_group
def data_engineering() -> SageMakerJobOperator:
    """Pictures in, three checked parts on S3 out."""
    fetched = SageMakerJobOperator(
        task_id="fetch",
        kind="processing",
        request=jobs.fetch,
        op_kwargs={
            "prefix": PREFIX,
            **{name: f"{{{{ params.{name} }}}}" for name in ("source", "pictures", "seed")},
        },
        execution_timeout=timedelta(hours=1),
    )
    transformed = SageMakerJobOperator(
        task_id="transform",
        kind="processing",
        request=jobs.transform,
        op_kwargs={"prefix": PREFIX, "size": "{{ params.size }}"},
        execution_timeout=timedelta(hours=1),
    )
    fetched >> transformed
    return transformed


@task(execution_timeout=timedelta(minutes=5))
def accept(prefix: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The gate: no better than the baseline, or below the threshold, and it ends here."""
    from pets import registry

    report = read_evaluation(workflow_settings(), prefix)
    return registry.accept(report, threshold=(params or {})["threshold"])


@task(execution_timeout=timedelta(minutes=5))
def register(trained: dict[str, Any], report: dict[str, Any]) -> dict[str, str]:
    """An approved version in the model registry, one for each training."""
    from pets import registry
    from pets.settings import pets_settings

    return registry.register(
        pets_settings(),
        name=trained["name"],
        model_uri=trained["model_uri"],
        report=report,
        context=get_current_context(),
    )


@task_group
def ml_engineering() -> dict[str, Any]:
    """A model that is better than the baseline, registered."""
    trained = SageMakerJobOperator(
        task_id="train",
        kind="training",
        request=jobs.train,
        spot=True,
        op_kwargs={
            "prefix": PREFIX,
            "wait_seconds": "{{ params.wait_seconds }}",
            "hyperparameters": {name: f"{{{{ params.{name} }}}}" for name in (*HYPERPARAMETERS, "seed")},
        },
        # Longer than the longest wait and training: the job's own limits come first.
        execution_timeout=timedelta(hours=6),
    )
    validated = SageMakerJobOperator(
        task_id="validate",
        kind="processing",
        request=jobs.validate,
        op_kwargs={"prefix": PREFIX, "model_uri": trained.output["model_uri"]},
        execution_timeout=timedelta(hours=1),
    )
    report = accept(PREFIX)
    registered = register(trained.output, report)
    trained >> validated >> report
    return {"trained": trained, "report": report, "registered": registered}


@task(execution_timeout=timedelta(minutes=50))
def build(model_uri: str) -> str:
    """The application's image around the model; returns its URI."""
    from pets import build
    from pets.settings import pets_settings

    settings = pets_settings()
    if settings.build is None:
        raise AirflowSkipException("this environment deploys no application: pets.platform is none")
    token = job_name(get_current_context(), kind="build")
    return build.build(settings.build, model_uri=model_uri, token=token)


@task(execution_timeout=timedelta(minutes=30))
def deploy(image: str, report: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The image in service on the environment's platform, once it has told a real picture right."""
    from pets import ecs, eks, smoke
    from pets.settings import pets_settings

    context, settings = get_current_context(), pets_settings()
    example = report["example"]
    picture = smoke.example_picture(workflow_settings().data_bucket, prefix, example["name"])
    if settings.ecs is not None:
        return ecs.deploy(
            settings.ecs,
            image=image,
            picture=picture,
            label=example["label"],
            marker=marker_of(context),
            tags=tags(context),
        )
    assert settings.eks is not None, "an image is only built for a platform"
    return eks.deploy(settings.eks, image=image, picture=picture, label=example["label"])


@task(trigger_rule="none_failed", execution_timeout=timedelta(minutes=5))
def summary(
    trained: dict[str, Any],
    report: dict[str, Any],
    registered: dict[str, str],
    deployed: dict[str, Any] | None,
) -> dict[str, Any]:
    """What came of the run."""
    return {
        "metric": "accuracy",
        "value": report["accuracy"],
        "baseline": report["baseline"]["accuracy"],
        "training_job_name": trained["name"],
        "billable_seconds": trained["billable_seconds"],
        "uri": trained["model_uri"],
        **registered,
        "deployed": deployed,
    }


@task(execution_timeout=timedelta(minutes=15))
def clean_up(prefix: str) -> dict[str, Any]:
    """Ends what a run may have left, whether it succeeded or not."""
    from pets import clean_up
    from pets.settings import pets_settings

    context = get_current_context()
    return clean_up.clean_up(
        workflow_settings(),
        pets_settings(),
        tags=tags(context),
        prefix=prefix,
        marker=marker_of(context),
    )


def marker_of(context: Any) -> str:
    """What a run's tasks on ECS are found by: the same for all of its tasks and tries, at most 36 characters."""
    import hashlib

    digest = hashlib.sha256(f"{context['dag_run'].dag_id}/{context['run_id']}".encode()).hexdigest()[:24]
    return f"pets-{digest}"


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    tags=["sagemaker", "training", "deployment"],
    doc_md=__doc__,
    dagrun_timeout=timedelta(hours=10),
    on_failure_callback=notify_failure,
    default_args=default_args("data-science"),
    params={
        "source": Param(
            "",
            type="string",
            pattern=r"^(s3://[a-z0-9.-]+/.+|https://.+)?$",
            description="Pictures in the Oxford-IIIT Pet layout: an S3 prefix or an https folder; empty: drawn ones",
        ),
        "pictures": Param(
            1_200, type="integer", minimum=300, maximum=20_000, description="How many pictures at most"
        ),
        "size": Param(48, type="integer", minimum=32, maximum=320, description="Side of a picture in pixels"),
        "epochs": Param(3, type="integer", minimum=1, maximum=200, description="Passes over the pictures"),
        "batch_size": Param(32, type="integer", minimum=2, maximum=512, description="Pictures of one step"),
        "learning_rate": Param(
            0.001, type="number", exclusiveMinimum=0, maximum=1, description="Its highest value in the run"
        ),
        "pretrained": Param(
            "",
            type="string",
            pattern=r"^([\w.-]+/[\w.-]+)?$",
            description="Weights to begin with, such as microsoft/resnet-34; empty: random ones",
        ),
        "seed": Param(7, type="integer", minimum=0, maximum=2**31 - 1, description="Of everything by chance"),
        "threshold": Param(
            0.9, type="number", minimum=0.5, maximum=1, description="Least accuracy on held-out pictures"
        ),
        "wait_seconds": Param(
            1_800, type="integer", minimum=0, maximum=14_400, description="Longest wait for spot capacity"
        ),
    },
)
def pet_detection() -> None:
    learned = ml_engineering()
    data_engineering() >> learned["trained"]
    image = build(learned["trained"].output["model_uri"])
    learned["registered"] >> image
    deployed = deploy(image, learned["report"], PREFIX)
    finished = summary(learned["trained"].output, learned["report"], learned["registered"], deployed)
    finished >> clean_up(PREFIX).as_teardown()


pet_detection()
