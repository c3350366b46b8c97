"""What the running local platform's roles did, held against their policies."""
