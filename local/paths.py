"""Where the laptop keeps its state, and the few fixed facts of its emulated account."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class LocalPaths:
    """The layout below one state directory; the account number, region and ports that go with it."""

    root: Path
    port: int = 4566
    webserver_port: int = 8080
    flower_port: int = 5555
    mlflow_port: int = 5000
    account_id: str = "000000000000"
    region: str = "us-east-1"
    # The emulator reads the account from a twelve-digit access key.
    access_key_id: str = "000000000000"
    secret_access_key: str = "local"

    def make_root(self) -> None:
        """Make the state directory, or take an old one, for its owner alone: the account's secrets lie in it."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)

    @property
    def state_directory(self) -> Path:
        return self.root

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def run(self) -> Path:
        """Records of running processes."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def account(self) -> Path:
        """The emulator's own saved state."""
        return self.root / "account"

    @property
    def database(self) -> Path:
        return self.root / "database"

    @property
    def broker(self) -> Path:
        return self.root / "broker"

    @property
    def ecs(self) -> Path:
        return self.root / "ecs"

    @property
    def images(self) -> Path:
        """Images as folders, by the hash of their build context."""
        return self.root / "images"

    @property
    def instances(self) -> Path:
        """What EC2 instances have on disk."""
        return self.root / "instances"

    @property
    def sagemaker(self) -> Path:
        return self.root / "sagemaker"

    @property
    def codebuild(self) -> Path:
        return self.root / "codebuild"

    @property
    def cloud_assembly(self) -> Path:
        """The synthesized stacks that were deployed last."""
        return self.root / "cdk.out"

    @property
    def environments(self) -> Path:
        """Python environments, one for each image."""
        return ROOT / ".updraft" / "envs"
