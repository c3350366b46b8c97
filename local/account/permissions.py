"""Who did what in the account, and whether AWS would have let them: every call of a role is held against its policies.

The emulator has IAM's evaluation, and is made to use it (`AUTH`); here its answers are recorded instead of obeyed, so
that one missing permission is told and hides none behind it. Calls with the account's own key are its owner's, who may
do everything. What is recorded is read with `GET /_updraft/permissions` and survives a restart.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from ministack import app as ministack_app  # type: ignore[import-untyped]
from ministack.core import iam_actions, iam_evaluator, lambda_runtime  # type: ignore[import-untyped]
from ministack.core.responses import request_scope  # type: ignore[import-untyped]
from ministack.services import iam, lambda_svc, sts  # type: ignore[import-untyped]

from local.account.api_permissions import Permission, RequestReader
from local.account.permission_record import ALLOWED, DENIED, UNKNOWN, UNTOLD
from local.account.principals import RoleCredentials
from local.paths import LocalPaths
from local.state_file import SavedTables

Record = dict[str, Any]
# As long as a laptop's platform can be up: containers and functions get their credentials only when they start.
SESSION_SECONDS = 10 * 365 * 24 * 3600


class Permissions:
    """The roles' credentials, and the record of what was done with them."""

    def __init__(self, paths: LocalPaths) -> None:
        self._paths = paths
        self._saved = SavedTables(paths.account / "permissions.json", calls={})
        self._lock = threading.Lock()
        self.reader = RequestReader(paths.region, paths.account_id, self._roles_of_task)
        # Replaced by ECS, whose task definitions these are.
        self.task_roles: Callable[[str], tuple[str, list[str]]] = lambda reference: (reference, [])
        # Replaced by SageMaker, whose resources are told apart by their tags: an ARN's tags, by their keys.
        self.tags_of: Callable[[str], dict[str, str]] = lambda _arn: {}
        self._enforce = iam_evaluator.enforce
        self._resource_of = iam_actions.extract_resource_arn
        # What the request that is being answered needs, by our own reading of it.
        self._needed: ContextVar[tuple[Permission, ...]] = ContextVar("needed_permissions", default=())

    def install(self) -> None:
        """Put this between the emulator's requests and its evaluation of policies."""
        if not ministack_app.AUTH:
            raise RuntimeError("the emulator was imported without AUTH=true: it would evaluate no policy")
        iam_actions.SERVICE_TO_IAM_NAMESPACE |= {"codedeploy": "codedeploy", "sagemaker": "sagemaker"}
        iam_actions.extract_resource_arn = self._read_request
        iam_evaluator.enforce = self._record_request
        lambda_runtime.execution_credentials = self._credentials_of_function
        lambda_svc.execution_credentials = self._credentials_of_function
        authenticate_only = ministack_app._authenticate_only

        def record_unread(service: str, headers: Record, query: Record, request_id: str) -> Any:
            self._record_unread(service, headers, query)
            return authenticate_only(service, headers, query, request_id)

        ministack_app._authenticate_only = record_unread
        # What is plain HTTP on the loopback is TLS on AWS, and bucket policies ask for it.
        pin_origin = ministack_app.pin_request_origin
        ministack_app.pin_request_origin = lambda address, _secure: pin_origin(address, True)

    def credentials(self, role_arn: str, session_name: str) -> RoleCredentials:
        """Credentials of a session of a role, known to the account from now on."""
        made = RoleCredentials(role_arn, session_name)
        session = f"assumed-role/{made.role_name}/{made.session_name[:64]}"
        # Set at once: the emulator's own way walks through all sessions, which other threads add to meanwhile.
        sts._sessions.setdefault(
            made.access_key_id,
            {
                "Arn": f"arn:aws:sts::{self._paths.account_id}:{session}",
                "UserId": f"{made.role_name}:{made.session_name[:64]}",
                "SecretAccessKey": made.secret_access_key,
                "SessionToken": made.session_token,
                "IssuedAt": time.time(),
                "Expiration": time.time() + SESSION_SECONDS,
            },
        )
        return made

    def needed(self, credentials: RoleCredentials, permissions: Iterable[Permission]) -> None:
        """Record what AWS itself does with a role, where the emulator makes no request for it."""
        for permission in permissions:
            self.needed_by_key(credentials.access_key_id, permission)

    def needed_by_key(self, access_key_id: str, permission: Permission) -> None:
        """The same for whoever has this access key."""
        if self._is_role(access_key_id):
            with request_scope(self._paths.account_id, self._paths.region):
                self._judge(access_key_id, permission)

    def document(self) -> Record:
        """Every recorded call, judged by the policies of now, and every grant of each role that has called."""
        with self._lock:
            calls = [dict(call) for call in self._saved.calls.values()]  # type: ignore[attr-defined]
        with request_scope(self._paths.account_id, self._paths.region):
            for call in calls:
                if call["verdict"] in (DENIED, UNTOLD):
                    probe = self.credentials(call["role"], "review")
                    permission = Permission(call["action"], call["resource"], call["keys"])
                    call["verdict"] = self._evaluate(probe.access_key_id, permission)[0]
            roles = sorted({call["role"] for call in calls})
            grants = {role: self._grants(role) for role in roles}
        return {"calls": calls, "grants": grants}

    def forget(self) -> None:
        """Begin a new record."""
        with self._lock:
            self._saved.calls.clear()  # type: ignore[attr-defined]
            self._saved.changed()

    def save(self) -> None:
        """Write the record when it has changed."""
        with self._lock:
            self._saved.save()

    # Requests

    def _read_request(
        self,
        service: str,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query: Record,
        region: str,
        account_id: str,
    ) -> str:
        """The resource of a request; the permissions that we read ourselves are kept for its evaluation."""
        action = iam_actions.extract_iam_action(service, method, path, headers, body, query) or ""
        needed = self.reader.permissions(action, _members(body, query))
        self._needed.set(tuple(needed))
        if needed:
            return needed[0].resource
        return str(self._resource_of(service, method, path, headers, body, query, region, account_id))

    def _record_request(
        self,
        access_key_id: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Record | None = None,
    ) -> Any:
        """In the place of the emulator's own: a request is refused for a wrong signature, never for a policy."""
        found = self._enforce(access_key_id, action, service, region, resource_arn, service_context)
        if isinstance(found, iam_evaluator.AuthError) or not self._is_role(access_key_id):
            return found
        keys = {name: value for name, value in (service_context or {}).items() if value is not None}
        needed = self._needed.get() or (Permission(action, resource_arn),)
        self._needed.set(())
        for permission in needed:
            merged = Permission(permission.action, permission.resource, {**keys, **permission.keys})
            self._judge(access_key_id, merged)
        return None

    def _record_unread(self, service: str, headers: Record, query: Record) -> None:
        access_key_id = str(ministack_app.extract_access_key_id(headers, query) or "")
        if self._is_role(access_key_id):
            target = headers.get("x-amz-target", "?").rpartition(".")[2]
            self._note(self._role_of(access_key_id), Permission(f"{service}:{target}"), UNKNOWN, "")

    # Judging

    def _judge(self, access_key_id: str, permission: Permission) -> None:
        tags = {f"aws:ResourceTag/{key}": value for key, value in self.tags_of(permission.resource).items()}
        permission = replace(permission, keys={**tags, **permission.keys})
        verdict, grant = self._evaluate(access_key_id, permission)
        self._note(self._role_of(access_key_id), permission, verdict, grant)

    def _evaluate(self, access_key_id: str, permission: Permission) -> tuple[str, str]:
        """The verdict, and the resource of the grant that allowed it."""
        principal = iam_evaluator.resolve_principal(access_key_id, self._paths.account_id)
        granted = [
            pattern
            for statements in principal.policies or []
            for statement in statements
            if statement.effect == "Allow"
            and iam_evaluator._action_matches(permission.action, statement.actions, statement.not_actions)
            for pattern in statement.resources
        ]
        if self._allows(access_key_id, permission, permission.resource):
            matching = (
                it for it in granted if iam_evaluator._resource_matches(permission.resource, [it], [])
            )
            return ALLOWED, next(matching, "")
        if permission.resource == "*" and any(self._allows(access_key_id, permission, it) for it in granted):
            return UNTOLD, ""
        return DENIED, ""

    def _allows(self, access_key_id: str, permission: Permission, resource: str) -> bool:
        service = permission.action.partition(":")[0]
        keys = dict(permission.keys)
        region = self._paths.region
        return self._enforce(access_key_id, permission.action, service, region, resource, keys) is None

    def _note(self, role: str, permission: Permission, verdict: str, grant: str) -> None:
        # An allowed call is kept once for each grant, any other once for each resource.
        key = " ".join((role, permission.action, verdict, grant or permission.resource))
        with self._lock:
            call = self._saved.calls.setdefault(  # type: ignore[attr-defined]
                key,
                {"role": role, "action": permission.action, "verdict": verdict, "grant": grant, "count": 0},
            )
            call |= {"resource": permission.resource, "keys": dict(permission.keys), "last_at": time.time()}
            call["count"] += 1
            self._saved.changed()

    def _grants(self, role_arn: str) -> list[dict[str, str]]:
        """Each action of each resource that a role's own policies allow."""
        policies = iam_evaluator._gather_role_policies(role_arn.rpartition("/")[2], self._paths.account_id)
        return [
            {"action": action, "resource": resource}
            for statements in policies
            for statement in statements
            if statement.effect == "Allow"
            for action in statement.actions
            for resource in statement.resources
        ]

    def _is_role(self, access_key_id: str) -> bool:
        return access_key_id in sts._sessions and bool(self._role_of(access_key_id))

    def _role_of(self, access_key_id: str) -> str:
        """The ARN of the role behind an access key; empty where there is no such role."""
        name = iam_evaluator._role_name_from_assumed_arn(sts._sessions[access_key_id].get("Arn", ""))
        role = iam._roles.get_scoped(self._paths.account_id, None, name)
        return str(role["Arn"]) if role else ""

    def _roles_of_task(self, reference: str) -> tuple[str, list[str]]:
        return self.task_roles(reference)

    def _credentials_of_function(self, config: Record) -> dict[str, str]:
        """What Lambda gives to a function, and what it does with the function's role before that."""
        made = self.credentials(config["Role"], config["FunctionName"])
        in_vpc = bool((config.get("VpcConfig") or {}).get("SubnetIds"))
        logging = config.get("LoggingConfig") or {}
        log_group = logging.get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        self.needed(made, self.reader.of_a_function(log_group, in_vpc=in_vpc))
        return made.environment()


def _members(body: bytes, query: Record) -> Record:
    """A request's members: of a JSON body, or of the form that the emulator has read."""
    if body[:1] == b"{":
        with contextlib.suppress(ValueError):
            return dict(json.loads(body))
    return {name: value[0] if isinstance(value, list) and value else value for name, value in query.items()}
