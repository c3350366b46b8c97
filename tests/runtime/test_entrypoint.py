"""The entry point puts Airflow's options together, or says what is missing."""

import base64
import json

import pytest

from runtime import entrypoint

PARTS = {
    "UPDRAFT_DATABASE_HOST": "db.internal",
    "UPDRAFT_DATABASE_PORT": "5432",
    "UPDRAFT_DATABASE_NAME": "airflow",
    "UPDRAFT_DATABASE_USER": "owner",
    "UPDRAFT_DATABASE_PASSWORD": "p/w@:%",
    "UPDRAFT_DATABASE_CA_BUNDLE": "/opt/updraft/database-ca.pem",
    "UPDRAFT_FERNET_SECRET": "anything",
    "UPDRAFT_BROKER": "redis",
    "UPDRAFT_BROKER_HOST": "cache.internal",
    "UPDRAFT_BROKER_PORT": "6379",
    "UPDRAFT_BROKER_PASSWORD": "s:/t",
}


def test_database_is_verified_and_its_password_escaped() -> None:
    options = entrypoint.compose(PARTS)
    url = options["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert url.startswith(
        "postgresql+psycopg2://owner:p%2Fw%40%3A%25@db.internal:5432/airflow?sslmode=verify-full"
    )
    assert options["AIRFLOW__CELERY__RESULT_BACKEND"].startswith("db+postgresql://")
    assert "?" not in options["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"]


def test_redis_is_spoken_to_over_tls() -> None:
    assert (
        entrypoint.compose(PARTS)["AIRFLOW__CELERY__BROKER_URL"] == "rediss://:s%3A%2Ft@cache.internal:6379/0"
    )


def test_fernet_key_is_stable_and_has_32_bytes() -> None:
    key = entrypoint.fernet_key("anything")
    assert key == entrypoint.fernet_key("anything")
    assert len(base64.urlsafe_b64decode(key)) == 32


def test_every_missing_variable_is_named() -> None:
    given = {name: value for name, value in PARTS.items() if "PASSWORD" not in name}
    with pytest.raises(
        entrypoint.MissingVariablesError, match="UPDRAFT_DATABASE_PASSWORD, UPDRAFT_BROKER_PASSWORD"
    ):
        entrypoint.compose(given)


def test_sqs_names_its_queues_and_takes_no_remote_control() -> None:
    given = PARTS | {
        "UPDRAFT_BROKER": "sqs",
        "UPDRAFT_BROKER_QUEUES": '{"default": "https://queue/1/default"}',
        "UPDRAFT_BROKER_VISIBILITY_TIMEOUT_SECONDS": "43200",
        "AWS_REGION": "us-east-1",
    }
    options = entrypoint.compose(given)
    assert options["AIRFLOW__CELERY__BROKER_URL"] == "sqs://"
    assert options["AIRFLOW__CELERY__WORKER_ENABLE_REMOTE_CONTROL"] == "False"
    assert options["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__WAIT_TIME_SECONDS"] == "2"
    queues = json.loads(options["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__PREDEFINED_QUEUES"])
    assert queues == {"default": {"url": "https://queue/1/default"}}
