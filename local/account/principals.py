"""Credentials of IAM roles on the laptop, made from the role's name: any process of the platform can make them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class RoleCredentials:
    """Temporary credentials of one session of a role; the account knows them once they are registered there."""

    role_arn: str
    session_name: str

    @property
    def role_name(self) -> str:
        return self.role_arn.rpartition("/")[2]

    @property
    def access_key_id(self) -> str:
        return f"ASIA{self._digest('key')[:16].upper()}"

    @property
    def secret_access_key(self) -> str:
        return self._digest("secret")

    @property
    def session_token(self) -> str:
        return self._digest("token")

    def environment(self) -> dict[str, str]:
        """The variables in which every AWS SDK looks first."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }

    def arguments(self) -> dict[str, str]:
        """The same as `boto3.client` takes them."""
        return {name.lower(): value for name, value in self.environment().items()}

    def _digest(self, purpose: str) -> str:
        return hashlib.sha256(f"{purpose}:{self.role_arn}:{self.session_name}".encode()).hexdigest()
