"""TLS settings of Airflow's asynchronous database driver, which takes no `sslmode` in its URL."""

from __future__ import annotations

import os
import ssl

# Named by `database.sql_alchemy_connect_args_async`.
CONNECT_ARGS_ASYNC = {"ssl": ssl.create_default_context(cafile=os.environ["UPDRAFT_DATABASE_CA_BUNDLE"])}
