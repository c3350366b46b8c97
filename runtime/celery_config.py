"""Celery's settings: Airflow's own, TLS to the broker, and the life of our workers (runtime/worker.py).

Named by `celery.celery_config_options`, so it is imported by whatever talks to the broker.
"""

from __future__ import annotations

import os
import ssl

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG
from celery.signals import celeryd_init, worker_init, worker_shutdown

from runtime import worker
from runtime.lineage import exporter

CELERY_CONFIG = dict(DEFAULT_CELERY_CONFIG)

if os.environ["UPDRAFT_BROKER"] == "redis":
    ca_bundle = os.environ["UPDRAFT_BROKER_CA_BUNDLE"]
    # An empty file stands for the public authorities.
    own_authority = {"ssl_ca_certs": ca_bundle} if os.path.getsize(ca_bundle) else {}  # noqa: PTH202
    CELERY_CONFIG["broker_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **own_authority}

celeryd_init.connect(worker.add_leave_step)
worker_init.connect(worker.preload)
# Tasks leave lineage on the worker's disk; without tracking there is nothing to hand over.
worker_init.connect(exporter.ensure_running)
worker_shutdown.connect(exporter.stop)
