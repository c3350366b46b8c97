"""What the core systems have agreed to deliver: tables, columns, types, and the values that are possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from insurance.source import CLAIM_KINDS, COVERAGES, DEDUCTIBLES_USD, OCCUPATIONS, VEHICLES


@dataclass(frozen=True)
class Column:
    """One column; `type` is a name that DuckDB and PostgreSQL share, `low` and `high` are possible values."""

    name: str
    type: str = "VARCHAR"
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table; no column may be empty. `references` maps a column to the table whose key it has, `rules` a sentence
    to the SQL condition of the rows that break it; `:as_of` stands for the delivery's date."""

    name: str
    key: str
    columns: tuple[Column, ...]
    references: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, str] = field(default_factory=dict)


CUSTOMERS = Table(
    "customers",
    key="customer_id",
    columns=(
        Column("customer_id"),
        Column("born_on", "DATE"),
        Column("region"),
        Column("occupation", allowed=tuple(OCCUPATIONS)),
        Column("credit_score", "INTEGER", low=300, high=850),
        Column("customer_since", "DATE"),
    ),
    rules={
        "customers younger than 17 or older than 110": "born_on NOT BETWEEN :as_of - INTERVAL 110 YEAR AND :as_of - INTERVAL 17 YEAR",
        "customers since a day to come": "customer_since > :as_of",
    },
)
POLICIES = Table(
    "policies",
    key="policy_id",
    columns=(
        Column("policy_id"),
        Column("customer_id"),
        Column("inception_on", "DATE"),
        Column("vehicle_class", allowed=tuple(VEHICLES)),
        Column("vehicle_age_years", "INTEGER", low=0, high=60),
        Column("vehicle_value_usd", "FLOAT8", low=100, high=2_000_000),
        Column("annual_mileage_km", "INTEGER", low=0, high=200_000),
        Column("parking", allowed=("garage", "driveway", "street")),
        Column("coverage", allowed=tuple(COVERAGES)),
        Column("deductible_usd", "INTEGER", allowed=tuple(map(str, DEDUCTIBLES_USD))),
        Column("premium_usd", "FLOAT8", low=20, high=50_000),
    ),
    references={"customer_id": "customers"},
    rules={"policies that begin on a day to come": "inception_on > :as_of"},
)
CLAIMS = Table(
    "claims",
    key="claim_id",
    columns=(
        Column("claim_id"),
        Column("policy_id"),
        Column("occurred_on", "DATE"),
        Column("reported_on", "DATE"),
        Column("kind", allowed=tuple(CLAIM_KINDS)),
        Column("amount_usd", "FLOAT8", low=0, high=5_000_000),
        Column("status", allowed=("open", "closed", "rejected")),
    ),
    references={"policy_id": "policies"},
    rules={
        "claims on a day to come": "occurred_on > :as_of OR reported_on > :as_of",
        "claims reported before they occurred": "reported_on < occurred_on",
    },
)
DELIVERED = (CUSTOMERS, POLICIES, CLAIMS)
