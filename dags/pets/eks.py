"""Deploys the application on an existing EKS cluster: the same blue and green, in Kubernetes' words.

Two Deployments, `pets-blue` and `pets-green`, stand behind one Service whose selector names the colour that has the
traffic. The idle colour gets the new image, a Service of its own, and a smoke test; only then the selector moves, and
the old colour goes to zero.

It speaks to the cluster's API itself (server-side apply), with a token of the tasks' role: the role needs an access
entry of the cluster that lets it manage Deployments and Services in the namespace.
"""

from __future__ import annotations

import base64
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
import requests
from airflow.sdk.exceptions import AirflowException
from botocore.signers import RequestSigner

from pets.smoke import SmokeError, try_out

NAME, PORT = "pets", 8000
COLOURS = ("blue", "green")
MANAGER = "updraft"
READY_SECONDS = 300
POLL_SECONDS = 3
TOKEN_SECONDS = 60
# https://kubernetes.io/docs/reference/using-api/server-side-apply/: JSON is YAML too.
APPLY = "application/apply-patch+yaml"
UID = 50_000
Manifest = dict[str, Any]
log = logging.getLogger(__name__)


def deployment(*, colour: str, image: str, count: int) -> Manifest:
    """The Deployment of a colour: the image without privileges, on a read-only root, probed on its health."""
    labels = {
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/managed-by": MANAGER,
        "updraft/colour": colour,
    }
    probe = {"httpGet": {"path": "/health", "port": PORT}, "timeoutSeconds": 5}
    container = {
        "name": NAME,
        "image": image,
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 10, "initialDelaySeconds": 60},
        "resources": {
            "requests": {"cpu": "250m", "memory": "512Mi"},
            "limits": {"memory": "1Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{NAME}-{colour}", "labels": labels},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": {"app.kubernetes.io/name": NAME, "updraft/colour": colour}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}, "type": "RollingUpdate"},
            "progressDeadlineSeconds": READY_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": UID,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def service(*, colour: str, name: str = NAME) -> Manifest:
    """The Service that sends its traffic to a colour; internal, and an address that the tasks' VPC reaches."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": MANAGER},
            "annotations": {
                "service.beta.kubernetes.io/aws-load-balancer-type": "external",
                "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type": "ip",
                "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app.kubernetes.io/name": NAME, "updraft/colour": colour},
            "ports": [{"name": "http", "port": 80, "targetPort": PORT}],
        },
    }


def deploy(settings: Mapping[str, Any], *, image: str, picture: bytes, label: str) -> dict[str, Any]:
    """Bring an image into service; raises AirflowException when it can't be, and the old colour still serves."""
    with Cluster.connect(settings["cluster"], settings["namespace"]) as cluster:
        return bring_up(cluster, image=image, count=settings["count"], picture=picture, label=label)


def bring_up(cluster: Cluster, *, image: str, count: int, picture: bytes, label: str) -> dict[str, Any]:
    """The steps of a deployment, on a cluster that is connected."""
    before = cluster.find("services", NAME)
    serving = before["spec"]["selector"].get("updraft/colour") if before else None
    colour = COLOURS[1] if serving == COLOURS[0] else COLOURS[0]
    candidate = f"{NAME}-{colour}"
    try:
        cluster.apply("deployments", deployment(colour=colour, image=image, count=count))
        cluster.apply("services", service(colour=colour, name=candidate))
        cluster.wait_ready(candidate, count=count)
        answer = try_out(cluster.address_of(candidate), picture, label=label)
    except (SmokeError, AirflowException) as error:
        cluster.delete("deployments", candidate)
        cluster.delete("services", candidate)
        raise AirflowException(f"the new application is not brought into service: {error}") from error
    cluster.apply("services", service(colour=colour))
    cluster.delete("services", candidate)
    if serving is not None:
        cluster.delete("deployments", f"{NAME}-{serving}")
    log.info("%s has the traffic", colour)
    return {"colour": colour, "replaced": serving, "example": dict(answer)}


class Cluster:
    """The part of a cluster's API that a deployment needs, in one namespace."""

    PATHS = {"deployments": "apis/apps/v1", "services": "api/v1"}  # noqa: RUF012

    def __init__(self, url: str, namespace: str, *, token: str, authority: Path | None) -> None:
        self._url, self._namespace = url.rstrip("/"), namespace
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = str(authority) if authority else True
        self._authority = authority

    @classmethod
    def connect(cls, name: str, namespace: str) -> Cluster:
        """The cluster of that name, by its address and its authority as EKS tells them."""
        found = boto3.client("eks").describe_cluster(name=name)["cluster"]
        with tempfile.NamedTemporaryFile(prefix="eks-", suffix=".pem", delete=False) as file:
            file.write(base64.b64decode(found["certificateAuthority"]["data"]))
        return cls(found["endpoint"], namespace, token=token_for(name), authority=Path(file.name))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()
        if self._authority is not None:
            self._authority.unlink(missing_ok=True)

    def find(self, kind: str, name: str) -> Manifest | None:
        """An object; None where there is none."""
        answer = self._session.get(self._place(kind, name), timeout=30)
        return None if answer.status_code == 404 else self._content(answer)

    def apply(self, kind: str, manifest: Manifest) -> None:
        """Make an object as its manifest says."""
        answer = self._session.patch(
            self._place(kind, manifest["metadata"]["name"]),
            params={"fieldManager": MANAGER, "force": "true"},
            headers={"Content-Type": APPLY},
            data=json.dumps(manifest),
            timeout=30,
        )
        self._content(answer)

    def delete(self, kind: str, name: str) -> None:
        """Delete an object; one that is gone is fine."""
        answer = self._session.delete(self._place(kind, name), timeout=30)
        if answer.status_code != 404:
            self._content(answer)

    def wait_ready(self, name: str, *, count: int) -> None:
        """Return when all of a Deployment's Pods are ready."""

        def ready() -> bool:
            found = self.find("deployments", name) or {}
            status = found.get("status", {})
            for condition in status.get("conditions", []):
                if condition.get("reason") == "ProgressDeadlineExceeded":
                    raise AirflowException(f"{name}: {condition.get('message')}")
            seen = status.get("observedGeneration", 0) >= found.get("metadata", {}).get("generation", 1)
            return bool(seen and status.get("updatedReplicas") == status.get("readyReplicas") == count)

        self._wait(ready, f"{name} to be ready")

    def address_of(self, name: str) -> str:
        """Where a Service's load balancer answers, once it has one."""
        found: list[str] = []

        def known() -> bool:
            status = (self.find("services", name) or {}).get("status", {})
            found[:] = [
                each.get("hostname") or each.get("ip")
                for each in status.get("loadBalancer", {}).get("ingress", [])
            ]
            return bool(found)

        self._wait(known, f"an address of {name}")
        return f"http://{found[0]}"

    def _place(self, kind: str, name: str) -> str:
        return f"{self._url}/{self.PATHS[kind]}/namespaces/{self._namespace}/{kind}/{name}"

    def _content(self, answer: requests.Response) -> Manifest:
        if not answer.ok:
            raise AirflowException(
                f"{answer.request.method} {answer.request.path_url} answered {answer.status_code}: {answer.text[:300]}"
            )
        content: Manifest = answer.json()
        return content

    def _wait(self, done: Any, what: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not done():
            if time.monotonic() > deadline:
                raise AirflowException(f"waited {READY_SECONDS} s for {what}")
            time.sleep(POLL_SECONDS)


def token_for(cluster: str) -> str:
    """The bearer token that EKS takes: a presigned question who is asking.

    https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
    """
    session = boto3.session.Session()
    client = session.client("sts")
    signer = RequestSigner(
        client.meta.service_model.service_id,
        session.region_name,
        "sts",
        "v4",
        session.get_credentials(),
        session.events,
    )
    url = signer.generate_presigned_url(
        {
            "method": "GET",
            "url": f"https://sts.{session.region_name}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15",
            "body": {},
            "headers": {"x-k8s-aws-id": cluster},
            "context": {},
        },
        region_name=session.region_name,
        expires_in=TOKEN_SECONDS,
        operation_name="",
    )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
