"""How fast and how safely DAGs go live, against the running local platform: `./updraft bench delivery`."""
