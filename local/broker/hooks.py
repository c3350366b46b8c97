"""Joins the emulator's ElastiCache, both its API and its CloudFormation types, to the broker plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ministack.services import elasticache  # type: ignore[import-untyped]

from local.broker.plane import BrokerPlane, NodeGroup
from local.broker.server import check_token

Record = dict[str, Any]
Parameters = dict[str, Any]
Response = tuple[int, dict[str, str], bytes]
ENGINES = ("redis", "valkey")


def stored_node_groups() -> Iterator[NodeGroup]:
    """Yield the node groups of all replication groups that the account knows."""
    # The plane starts them; the emulator would do it at the first request to the service.
    elasticache._pending_rg_respawn.clear()
    for _, record in elasticache._replication_groups.all_items():
        for group in record["NodeGroups"]:
            yield NodeGroup(
                identifier=_identifier(record["ReplicationGroupId"], group["NodeGroupId"]),
                tokens=_tokens(record),
            )


class ElastiCacheHooks:
    """The replaced functions, around one plane."""

    def __init__(self, plane: BrokerPlane) -> None:
        self._plane = plane
        self._create = elasticache._create_replication_group
        self._delete = elasticache._delete_replication_group
        self._modify = elasticache._modify_replication_group
        self._update_auth_token = elasticache._update_auth_token

    def install(self) -> None:
        """Replace the emulator's functions; its API and its CloudFormation types both call these."""
        elasticache._get_docker = lambda: None
        elasticache._spawn_redis_container = self.spawn
        elasticache._create_replication_group = self.create
        elasticache._delete_replication_group = self.delete
        elasticache._modify_replication_group = self.modify
        elasticache._update_auth_token = self.update_auth_token
        for name in ("_create_cache_cluster", "_create_serverless_cache"):
            setattr(elasticache, name, _refuse(name.removeprefix("_create_").replace("_", " ")))

    def create(self, parameters: Parameters) -> Response:
        """CreateReplicationGroup: the endpoint answers when this returns."""
        token = elasticache._p(parameters, "AuthToken")
        engine = elasticache._p(parameters, "Engine") or "redis"
        try:
            if engine not in ENGINES:
                raise ValueError(f"Engine: {engine!r} is not one of {', '.join(ENGINES)}")
            if elasticache._p(parameters, "TransitEncryptionEnabled").lower() != "true":
                raise ValueError(
                    "TransitEncryptionEnabled: the local data plane serves TLS alone; set it to true"
                )
            if token:
                check_token(token)
        except ValueError as error:
            return _response(elasticache._error("InvalidParameterValue", str(error), 400))
        return _response(self._create(parameters))

    def spawn(
        self, *, labels: dict[str, str], auth_token: str | None = None, **_: object
    ) -> tuple[str, int, str]:
        """Start a node group's server instead of a container; returns address, port and an id."""
        identifier = _identifier(labels["rg_id"], labels["node_group"])
        tokens = (auth_token,) if auth_token else ()
        port = self._plane.start_node_group(NodeGroup(identifier=identifier, tokens=tokens))
        return "127.0.0.1", port, identifier

    def delete(self, parameters: Parameters) -> Response:
        """DeleteReplicationGroup: the servers are gone, with their data, when this returns."""
        record = elasticache._replication_groups.get(elasticache._p(parameters, "ReplicationGroupId"))
        answer = self._delete(parameters)
        if answer[0] == 200 and record:
            for group in record["NodeGroups"]:
                self._plane.delete_node_group(_identifier(record["ReplicationGroupId"], group["NodeGroupId"]))
        return _response(answer)

    def modify(self, parameters: Parameters) -> Response:
        """ModifyReplicationGroup, with AWS' rules for tokens."""
        if token := elasticache._p(parameters, "AuthToken"):
            try:
                check_token(token)
            except ValueError as error:
                return _response(elasticache._error("InvalidParameterValue", str(error), 400))
        return _response(self._modify(parameters))

    def update_auth_token(self, record: Record, token: str, strategy: str) -> None:
        """Rotate, set or delete the token in the record and in the servers."""
        self._update_auth_token(record, token, strategy)
        for group in record["NodeGroups"]:
            identifier = _identifier(record["ReplicationGroupId"], group["NodeGroupId"])
            self._plane.set_tokens(identifier, _tokens(record))


def _tokens(record: Record) -> tuple[str, ...]:
    return () if record.get("_auth_optional") else tuple(record.get("_auth_tokens") or ())


def _identifier(replication_group_id: str, node_group_id: str) -> str:
    return f"{replication_group_id}-{node_group_id}"


def _refuse(thing: str) -> Callable[[Parameters], Response]:
    def refuse(_: Parameters) -> Response:
        message = f"{thing}: has no local data plane; a replication group has one"
        return _response(elasticache._error("InvalidParameterValue", message, 400))

    return refuse


def _response(answer: Any) -> Response:
    status, headers, body = answer
    return status, headers, body
