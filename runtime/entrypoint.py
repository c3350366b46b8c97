"""The image's entry point: puts together the URLs and keys that Airflow wants, then becomes the command.

The parts come from the task definition, passwords among them only as ECS secrets (docs/architecture.md). Standard
library only, so that it costs next to nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from urllib.parse import quote

# Redis delivers a message again after this long: no task may run longer.
REDIS_VISIBILITY_TIMEOUT_SECONDS = 7 * 86_400
# A long poll of SQS has to end before a leaving worker has (it listens 3 s more): a message that comes for a worker
# that is gone would be hidden for the whole visibility timeout.
SQS_WAIT_SECONDS = 2
DATABASE = ("HOST", "PORT", "NAME", "USER", "PASSWORD", "CA_BUNDLE")


class MissingVariablesError(Exception):
    """Variables that the task definition should have set."""


def main() -> None:
    """Extend the environment and exec the command; exits 2 naming every missing variable."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m runtime.entrypoint COMMAND [ARGUMENT …]")
    try:
        os.environ.update(compose(os.environ))
    except MissingVariablesError as error:
        print(f"runtime.entrypoint: {error}", file=sys.stderr)
        sys.exit(2)
    os.execvp(sys.argv[1], sys.argv[1:])


def compose(given: Mapping[str, str]) -> dict[str, str]:
    """Airflow's options made from the parts; raises MissingVariablesError with all that are missing."""
    needed = [f"UPDRAFT_DATABASE_{part}" for part in DATABASE] + ["UPDRAFT_BROKER", "UPDRAFT_FERNET_SECRET"]
    if given.get("UPDRAFT_BROKER") == "redis":
        needed += [f"UPDRAFT_BROKER_{part}" for part in ("HOST", "PORT", "PASSWORD")]
    missing = [name for name in needed if not given.get(name)]
    if missing:
        raise MissingVariablesError(f"not set: {', '.join(missing)}; the task definition has to set them")
    options = {
        "AIRFLOW__CORE__FERNET_KEY": fernet_key(given["UPDRAFT_FERNET_SECRET"]),
        "AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS": "runtime.celery_config.CELERY_CONFIG",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS_ASYNC": "runtime.database.CONNECT_ARGS_ASYNC",
    }
    options |= _database(given) | _broker(given)
    if "UPDRAFT_FLOWER_PASSWORD" in given:
        login = f"{given['UPDRAFT_FLOWER_USERNAME']}:{given['UPDRAFT_FLOWER_PASSWORD']}"
        options["AIRFLOW__CELERY__FLOWER_BASIC_AUTH"] = login
    return options


def fernet_key(secret: str) -> str:
    """A Fernet key (32 bytes in URL-safe base64) from any generated secret."""
    return base64.urlsafe_b64encode(hashlib.sha256(secret.encode()).digest()).decode()


def _database(given: Mapping[str, str]) -> dict[str, str]:
    part = {name: given[f"UPDRAFT_DATABASE_{name}"] for name in DATABASE}
    login = f"{quote(part['USER'], safe='')}:{quote(part['PASSWORD'], safe='')}"
    place = f"{login}@{part['HOST']}:{part['PORT']}/{part['NAME']}"
    tls = f"sslmode=verify-full&sslrootcert={quote(part['CA_BUNDLE'], safe='')}"
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{place}?{tls}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": f"postgresql+asyncpg://{place}",
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{place}?{tls}",
    }


def _broker(given: Mapping[str, str]) -> dict[str, str]:
    if given["UPDRAFT_BROKER"] == "redis":
        password = quote(given["UPDRAFT_BROKER_PASSWORD"], safe="")
        place = f"{given['UPDRAFT_BROKER_HOST']}:{given['UPDRAFT_BROKER_PORT']}"
        return {
            "AIRFLOW__CELERY__BROKER_URL": f"rediss://:{password}@{place}/0",
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(
                REDIS_VISIBILITY_TIMEOUT_SECONDS
            ),
        }
    endpoint = given.get("AWS_ENDPOINT_URL_SQS", given.get("AWS_ENDPOINT_URL", ""))
    queues = {name: {"url": url} for name, url in json.loads(given["UPDRAFT_BROKER_QUEUES"]).items()}
    return {
        "AIRFLOW__CELERY__BROKER_URL": f"sqs://{endpoint.partition('://')[2]}",
        "AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL": "False",
        "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__REGION": given["AWS_REGION"],
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__WAIT_TIME_SECONDS": str(SQS_WAIT_SECONDS),
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__IS_SECURE": str(not endpoint.startswith("http://")),
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": given[
            "UPDRAFT_BROKER_VISIBILITY_TIMEOUT_SECONDS"
        ],
        "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__PREDEFINED_QUEUES": json.dumps(queues),
    }


if __name__ == "__main__":
    main()
