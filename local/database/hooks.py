"""Joins the emulator's RDS, both its API and its CloudFormation types, to the database plane.

The emulator keeps the records of DB instances and answers the API; the functions replaced here are those
that would start a container, and those that change a status without anything behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from ministack.core.rds_iam import VerifiedRdsToken, verify_rds_iam_token  # type: ignore[import-untyped]
from ministack.services import rds  # type: ignore[import-untyped]
from ministack.services.cloudformation import provisioners  # type: ignore[import-untyped]

from local.account.api_permissions import Permission
from local.account.permissions import Permissions
from local.database.plane import DatabasePlane, InstanceSpec
from local.database.server import Master, check_master_user, memory_bytes

Record = dict[str, Any]
Parameters = dict[str, Any]
Response = tuple[int, dict[str, str], bytes]
Handler = Callable[[Parameters], Response]

TYPE = "AWS::RDS::DBInstance"
# RDS takes a major version alone for its default minor, and always tells both.
DEFAULT_MINOR = "6"
# States in which a crash may leave an instance that its owner wants to run.
WANTED_STATES = {"available", "creating", "starting", "rebooting", "modifying"}


def stored_instances(permissions: Permissions) -> Iterator[InstanceSpec]:
    """Yield the instances that should run, and mark interrupted ones as what they become."""
    for (account_id, region, _), record in list(rds._instances.all_items()):
        if record["DBInstanceStatus"] in WANTED_STATES:
            record["DBInstanceStatus"] = "available"
            yield spec_of(record, permissions, account_id=account_id, region=region)
        elif record["DBInstanceStatus"] == "stopping":
            record["DBInstanceStatus"] = "stopped"


def spec_of(record: Record, permissions: Permissions, *, account_id: str, region: str) -> InstanceSpec:
    """Return what the data plane needs of a DB instance's record."""

    def check_token(user: str, token: str) -> bool:
        if not record.get("IAMDatabaseAuthenticationEnabled"):
            return False
        answer = verify_rds_iam_token(
            token,
            hostname=record["Endpoint"]["Address"],
            port=record["Endpoint"]["Port"],
            db_user=user,
            region=region,
            account_id=account_id,
        )
        if not isinstance(answer, VerifiedRdsToken):
            return False
        user_arn = f"arn:aws:rds-db:{region}:{account_id}:dbuser:{record['DbiResourceId']}/{user}"
        permissions.needed_by_key(answer.access_key_id, Permission("rds-db:connect", user_arn))
        return True

    return InstanceSpec(
        identifier=record["DBInstanceIdentifier"],
        instance_class=record["DBInstanceClass"],
        master=Master(
            user=record["MasterUsername"], password=record["_MasterUserPassword"], database=record["DBName"]
        ),
        check_token=check_token,
    )


def check_new_instance(record: Record) -> None:
    """Raise ValueError for what RDS, or the local data plane, can't make."""
    if record["Engine"] != "postgres":
        raise ValueError(f"Engine: {record['Engine']!r} has no local data plane; postgres has one")
    check_master_user(record["MasterUsername"])
    check_password(record["_MasterUserPassword"])
    memory_bytes(record["DBInstanceClass"])


def complete_version(record: Record) -> None:
    """Give a record that was asked for with a major version alone its minor one."""
    if "." not in record["EngineVersion"]:
        record["EngineVersion"] += f".{DEFAULT_MINOR}"


def check_password(password: str) -> None:
    """Raise ValueError for a password that RDS for PostgreSQL refuses."""
    if password.startswith("{{resolve:"):
        raise ValueError("MasterUserPassword: the dynamic reference was not resolved; does the secret exist?")
    printable = password.isascii() and password.isprintable()
    if not 8 <= len(password) <= 128 or not printable or set(password) & set("/'\"@ "):
        raise ValueError(
            "MasterUserPassword: must have 8 to 128 printable ASCII characters "
            "other than slash, quotes, at sign and space"
        )


class RdsHooks:
    """The replaced functions, around one plane."""

    def __init__(self, plane: DatabasePlane, permissions: Permissions) -> None:
        self._plane = plane
        self._permissions = permissions
        self._create = rds._create_db_instance
        self._delete = rds._delete_db_instance
        self._modify = rds._modify_db_instance
        self._cloudformation_create = provisioners._rds_db_instance_create
        self._cloudformation_update = provisioners._rds_db_instance_update
        self._cloudformation_delete = provisioners._rds_db_instance_delete

    def install(self) -> None:
        """Replace the emulator's functions by this object's."""
        rds._get_docker = lambda: None
        rds._rotate_instance_password = self.rotate_password
        rds._finish_instance_reboot = self.finish_reboot
        actions: dict[str, Handler] = rds._ACTION_MAP
        actions["CreateDBInstance"] = self.create
        actions["DeleteDBInstance"] = self.delete
        actions["ModifyDBInstance"] = self.modify
        actions["StartDBInstance"] = self.start
        actions["StopDBInstance"] = self.stop
        actions["CreateDBSnapshot"] = self.refuse_snapshot
        provisioners._rds_db_instance_create = self.cloudformation_create
        provisioners._rds_db_instance_delete = self.cloudformation_delete
        handlers = provisioners._RESOURCE_HANDLERS[TYPE]
        handlers["create"] = self.cloudformation_create
        handlers["update"] = self.cloudformation_update
        handlers["delete"] = self.cloudformation_delete
        handlers["snapshot"] = self.cloudformation_snapshot

    def create(self, parameters: Parameters) -> Response:
        """CreateDBInstance: answers `creating`; the instance gets available, or failed, later."""
        answer = self._create(parameters)
        identifier = rds._p(parameters, "DBInstanceIdentifier")
        if answer[0] != 200:
            return _response(answer)
        record: Record = rds._instances[identifier]
        try:
            check_new_instance(record)
        except ValueError as error:
            del rds._instances[identifier]
            return _response(rds._error("InvalidParameterValue", str(error), 400))
        complete_version(record)
        self._set_endpoint(record)
        record["DBInstanceStatus"] = "creating"
        response = _answer("CreateDBInstance", record)
        self._in_background(record, self._start_recorded)
        return response

    def delete(self, parameters: Parameters) -> Response:
        """DeleteDBInstance: the server is gone, with its data, when this returns."""
        identifier = rds._p(parameters, "DBInstanceIdentifier")
        wants_snapshot = rds._p(parameters, "SkipFinalSnapshot") != "true"
        if wants_snapshot and rds._p(parameters, "FinalDBSnapshotIdentifier"):
            return self.refuse_snapshot(parameters)
        if wants_snapshot and rds._resolve_instance(identifier):
            message = "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified."
            return _response(rds._error("InvalidParameterCombination", message, 400))
        record = rds._resolve_instance(identifier)
        answer = self._delete(parameters)
        if answer[0] == 200 and record:
            self._plane.delete_instance(record["DBInstanceIdentifier"])
        return _response(answer)

    def modify(self, parameters: Parameters) -> Response:
        """ModifyDBInstance: password and class take effect on the real server."""
        record = rds._resolve_instance(rds._p(parameters, "DBInstanceIdentifier"))
        try:
            if password := rds._p(parameters, "MasterUserPassword"):
                check_password(password)
            if new_class := rds._p(parameters, "DBInstanceClass"):
                memory_bytes(new_class)
        except ValueError as error:
            return _response(rds._error("InvalidParameterValue", str(error), 400))
        before = record["DBInstanceClass"] if record else None
        answer = self._modify(parameters)
        if record:
            complete_version(record)
        if record and record["DBInstanceClass"] != before and record["DBInstanceStatus"] == "available":
            record["DBInstanceStatus"] = "modifying"
            self._in_background(record, self._start_recorded)
        return _response(answer)

    def start(self, parameters: Parameters) -> Response:
        """StartDBInstance."""
        return self._change_state(parameters, "StartDBInstance", "stopped", "starting", self._start_recorded)

    def stop(self, parameters: Parameters) -> Response:
        """StopDBInstance."""
        return self._change_state(parameters, "StopDBInstance", "available", "stopping", self._stop_recorded)

    def refuse_snapshot(self, _: Parameters) -> Response:
        """Snapshots would hold nothing here, so none is made."""
        message = "the local data plane makes no DB snapshots; delete with SkipFinalSnapshot"
        return _response(rds._error("InvalidParameterCombination", message, 400))

    def rotate_password(self, record: Record, _old: str, new: str) -> None:
        """Set the master's password in the server; a stopped one takes it at its next start."""
        if record["DBInstanceStatus"] == "available":
            self._plane.set_master_password(
                record["DBInstanceIdentifier"], user=record["MasterUsername"], password=new
            )

    def finish_reboot(self, record: Record, _cluster: Record | None) -> None:
        """Restart the server; runs in the emulator's reboot thread."""
        self._start_recorded(record)
        rds._record_reboot_event(record)

    def cloudformation_create(self, logical_id: str, props: Record, stack_name: str) -> tuple[str, Record]:
        """Create the instance and return when it is available, as CloudFormation does."""
        identifier, _ = self._cloudformation_create(logical_id, props, stack_name)
        record: Record = rds._instances[identifier]
        try:
            if missing := [name for name in ("MasterUsername", "MasterUserPassword") if not props.get(name)]:
                raise ValueError(f"{TYPE}: {', '.join(missing)} is required by the local data plane")
            check_new_instance(record)
            complete_version(record)
            self._set_endpoint(record)
            record["DBInstanceStatus"] = "creating"
            self._plane.start_instance(self._spec(record))
        except Exception:
            del rds._instances[identifier]
            self._plane.delete_instance(identifier)
            raise
        record["DBInstanceStatus"] = "available"
        return identifier, provisioners._rds_db_instance_attrs(record)

    def cloudformation_update(
        self, physical_id: str, old: Record, new: Record, stack_name: str, logical_id: str | None = None
    ) -> tuple[str, Record]:
        """Update the record, then the server: a new password is set, a new class means a restart."""
        if new.get("MasterUserPassword"):
            check_password(new["MasterUserPassword"])
        if new.get("DBInstanceClass"):
            memory_bytes(new["DBInstanceClass"])
        identifier, _ = self._cloudformation_update(physical_id, old, new, stack_name, logical_id)
        record: Record = rds._instances[identifier]
        complete_version(record)
        self._set_endpoint(record)
        if identifier == physical_id and record["DBInstanceStatus"] == "available":
            if old.get("DBInstanceClass") != new.get("DBInstanceClass"):
                self._plane.start_instance(self._spec(record))
            elif old.get("MasterUserPassword") != new.get("MasterUserPassword"):
                self.rotate_password(record, "", record["_MasterUserPassword"])
        return identifier, provisioners._rds_db_instance_attrs(record)

    def cloudformation_delete(self, physical_id: str, props: Record) -> None:
        """Delete the instance; a protected one is refused."""
        record = rds._instances.get(physical_id)
        if record and record.get("DeletionProtection"):
            raise ValueError(f"{TYPE} {physical_id}: deletion protection is on; turn it off first")
        self._cloudformation_delete(physical_id, props)
        if record:
            self._plane.delete_instance(physical_id)

    def cloudformation_snapshot(self, physical_id: str, _props: Record) -> None:
        """Refuse a deletion policy that promises a snapshot."""
        raise ValueError(
            f"{TYPE} {physical_id}: the local data plane makes no snapshots; use DeletionPolicy Delete or Retain"
        )

    def _change_state(
        self,
        parameters: Parameters,
        action: str,
        expected: str,
        passing: str,
        act: Callable[[Record], None],
    ) -> Response:
        identifier = rds._p(parameters, "DBInstanceIdentifier")
        record = rds._resolve_instance(identifier)
        if not record:
            return _response(rds._error("DBInstanceNotFound", f"DBInstance {identifier} not found.", 404))
        if record["DBInstanceStatus"] != expected:
            message = f"Instance {identifier} is not in {expected} state, it is {record['DBInstanceStatus']}."
            return _response(rds._error("InvalidDBInstanceState", message, 400))
        record["DBInstanceStatus"] = passing
        response = _answer(action, record)
        self._in_background(record, act)
        return response

    def _start_recorded(self, record: Record) -> None:
        self._plane.start_instance(self._spec(record))
        record["DBInstanceStatus"] = "available"

    def _stop_recorded(self, record: Record) -> None:
        self._plane.stop_instance(record["DBInstanceIdentifier"])
        record["DBInstanceStatus"] = "stopped"

    def _in_background(self, record: Record, act: Callable[[Record], None]) -> None:
        def run() -> None:
            try:
                act(record)
            except Exception:
                record["DBInstanceStatus"] = "failed"
                raise

        threading.Thread(target=run, name=f"rds-{record['DBInstanceIdentifier']}", daemon=True).start()

    def _set_endpoint(self, record: Record) -> None:
        port = self._plane.port(record["DBInstanceIdentifier"])
        record["Endpoint"] |= {"Address": "127.0.0.1", "Port": port}

    def _spec(self, record: Record) -> InstanceSpec:
        _, _, _, region, account_id, *_ = record["DBInstanceArn"].split(":")
        return spec_of(record, self._permissions, account_id=account_id, region=region)


def _answer(action: str, record: Record) -> Response:
    return _response(rds._single_instance_response(f"{action}Response", f"{action}Result", record))


def _response(answer: Any) -> Response:
    status, headers, body = answer
    return status, headers, body
