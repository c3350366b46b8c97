"""The build context of an image: exactly the files that its Dockerfile copies, and nothing else of the checkout."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from aws_cdk import aws_ecr_assets as ecr_assets
from constructs import Construct

from stacks.config import ROOT, EnvironmentConfig

FILES = {"airflow": ("airflow_local_settings.py",), "mlflow": ("server.py",), "spark": ("local_spark.py",)}
SOURCES: dict[str, tuple[str, ...]] = {
    "airflow": ("runtime",),
    "training": ("ml",),
    "pets-training": ("ml",),
    "mlflow": (),
    "spark": (),
}
# Images that talk to the database and the broker, and so hold their authorities.
WITH_AUTHORITIES = ("airflow", "mlflow")
PLATFORMS = {"arm64": ecr_assets.Platform.LINUX_ARM64, "x86_64": ecr_assets.Platform.LINUX_AMD64}


class Image(Construct):
    """The image of `docker/{name}`, built by the CDK CLI; its asset's display name is the image's name."""

    def __init__(
        self, scope: Construct, construct_id: str, *, name: str, config: EnvironmentConfig, architecture: str
    ) -> None:
        super().__init__(scope, construct_id)
        with tempfile.TemporaryDirectory(prefix=f"updraft-{name}-") as context:
            stage_context(Path(context), name, config)
            # Copied into the cloud assembly by the constructor.
            self.asset = ecr_assets.DockerImageAsset(
                self, "Asset", directory=context, display_name=name, platform=PLATFORMS[architecture]
            )


def stage_context(context: Path, name: str, config: EnvironmentConfig) -> None:
    """Copy the Dockerfile, the lock, the sources and the certificate authorities of an image to an empty folder."""
    for file in ("Dockerfile", "requirements.txt", *FILES.get(name, ())):
        shutil.copyfile(ROOT / "docker" / name / file, context / file)
    for source in SOURCES[name]:
        shutil.copytree(
            ROOT / source, context / source, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "hooks")
        )
    if name in WITH_AUTHORITIES:
        shutil.copyfile(ROOT / config.database.ca_bundle, context / "database-ca.pem")
        broker = config.broker.ca_bundle
        (context / "broker-ca.pem").write_bytes((ROOT / broker).read_bytes() if broker else b"")
