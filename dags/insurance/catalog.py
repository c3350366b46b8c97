"""Where the pipeline's data lies, and the names that its DAG and its steps share. Costs a DAG file nothing to import."""

from __future__ import annotations

DELIVERED = ("customers", "policies", "claims")
# Whose delivery lies below `raw/` and `staged/`, which all runs share, and what it has.
MANIFEST = "insurance/raw/manifest.json"
# Policies with their customer, region and claims; `policies` as they were delivered are staged too.
ENRICHED = "policies_enriched"
FEATURES = "policy_features"
SCORES = "policy_scores"
# What is published, in the warehouse and in the lake, and the staged table that it is.
CURATED = {"customers": "customers", "policies": ENRICHED, "claims": "claims", FEATURES: FEATURES}
# The columns that make a row.
KEYS = {
    "customers": ("customer_id",),
    "policies": ("policy_id",),
    "claims": ("claim_id",),
    FEATURES: ("policy_id", "as_of"),
    SCORES: ("policy_id",),
}
# The ways in which a delivery can be spoilt (source.py), to see what comes of it.
DEFECT_NAMES = (
    "missing column",
    "wrong type",
    "empty value",
    "duplicates",
    "orphans",
    "out of range",
    "unknown value",
    "future dates",
    "truncated",
    "stale",
    "unknown region",
)


def raw_key(table: str) -> str:
    """A delivered table."""
    return f"insurance/raw/{table}.csv"


def staged_key(table: str) -> str:
    """A typed or transformed table that has not been published."""
    return f"insurance/staged/{table}.parquet"


def curated_key(table: str) -> str:
    """A published table."""
    return f"insurance/{table}.parquet"
