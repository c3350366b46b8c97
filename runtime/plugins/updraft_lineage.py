"""Airflow's plugin of lineage; `core.plugins_folder` names this folder where tracking is on."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowPlugin

from runtime.lineage import listener


class LineagePlugin(AirflowPlugin):  # type: ignore[misc]
    """Registers the listener in every Airflow process."""

    name = "updraft_lineage"
    listeners = (listener,)
