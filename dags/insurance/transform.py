"""From the delivery to what is published, in SQL: typed tables, policies with their customer's region and claims, and
the features of a model that foresees claims."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from insurance.lake import write_parquet
from insurance.source import REGION_RISK
from insurance.tables import DELIVERED
from ml.insurance.features import COVERAGES, FEATURES, LABEL, OCCUPATIONS, PARKING, VEHICLE_CLASSES

SPLITS = ("train", "validation", "test")
# Policies without a label: what is to be foreseen; and their keys, line by line.
CURRENT = "current"
KEYS_FILE = "current.keys.csv"
PAST = "INTERVAL 3 YEAR"
Connection = Any

ENRICHED = """
SELECT
    p.*,
    c.born_on, c.region, c.occupation, c.credit_score, c.customer_since,
    r.urban_share, r.traffic_index, r.theft_index, r.weather_index,
    coalesce(k.claims, 0)::INTEGER AS claims,
    coalesce(k.claims_usd, 0)::FLOAT8 AS claims_usd,
    k.last_claim_on
FROM staged_policies p
LEFT JOIN staged_customers c USING (customer_id)
LEFT JOIN region_risk r USING (region)
LEFT JOIN (
    SELECT policy_id, count(*) AS claims, sum(amount_usd) AS claims_usd, max(occurred_on) AS last_claim_on
    FROM staged_claims WHERE status <> 'rejected' GROUP BY policy_id
) k USING (policy_id)
ORDER BY policy_id
"""
# What was known of each policy on the day {as_of}, and whether it had a claim in the year after. A customer's policies
# are all in one split: otherwise the model could know from one what another's claim was.
FEATURES_ON_A_DAY = """
WITH past AS (
    SELECT p.policy_id, p.customer_id, count(*) AS claims, sum(k.amount_usd) AS usd, max(k.occurred_on) AS newest_on
    FROM staged_claims k JOIN policies p USING (policy_id)
    WHERE k.status <> 'rejected' AND k.reported_on < DATE '{as_of}' AND k.occurred_on >= DATE '{as_of}' - {past}
    GROUP BY ALL
),
of_customer AS (
    SELECT customer_id, count(*) AS policies, coalesce(sum(past.claims), 0) AS claims
    FROM policies p LEFT JOIN past USING (policy_id, customer_id)
    WHERE p.inception_on <= DATE '{as_of}' GROUP BY customer_id
),
year AS (
    SELECT DISTINCT policy_id FROM staged_claims
    WHERE status <> 'rejected' AND occurred_on >= DATE '{as_of}' AND occurred_on < DATE '{as_of}' + INTERVAL 1 YEAR
),
rows AS (
    SELECT
        p.policy_id, p.customer_id, DATE '{as_of}' AS as_of, {split} AS split,
        datediff('day', p.born_on, DATE '{as_of}') / 365.25 AS customer_age_years,
        datediff('day', p.customer_since, DATE '{as_of}') / 365.25 AS customer_tenure_years,
        p.credit_score, p.urban_share, p.traffic_index, p.theft_index, p.weather_index,
        p.vehicle_age_years, p.vehicle_value_usd, p.annual_mileage_km, p.deductible_usd, p.premium_usd,
        p.premium_usd / p.vehicle_value_usd AS premium_per_value,
        least(datediff('day', p.inception_on, DATE '{as_of}'), 3 * 365) / 365.25 AS insured_years,
        coalesce(past.claims, 0) AS past_claims,
        coalesce(past.usd, 0) AS past_claims_usd,
        coalesce(datediff('day', past.newest_on, DATE '{as_of}'), 9999) AS days_since_claim,
        o.policies AS customer_policies,
        o.claims AS customer_past_claims,
        {indicators},
        {label} AS label
    FROM policies p
    LEFT JOIN past USING (policy_id, customer_id)
    JOIN of_customer o USING (customer_id)
    LEFT JOIN year y USING (policy_id)
    WHERE p.inception_on <= DATE '{as_of}'
)
SELECT policy_id, customer_id, as_of, split, {features}, label FROM rows
"""
INDICATORS = {
    "vehicle_class": VEHICLE_CLASSES,
    "parking": PARKING,
    "coverage": COVERAGES,
    "occupation": OCCUPATIONS,
}


def stage(connection: Connection, files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Checked CSV files (by table) as typed Parquet files."""
    staged = {}
    for table in DELIVERED:
        columns = ", ".join(
            f"CAST({column.name} AS {column.type}) AS {column.name}" for column in table.columns
        )
        source = f"read_csv('{files[table.name]}', header = true, delim = ',', all_varchar = true)"
        staged[table.name] = folder / f"{table.name}.parquet"
        write_parquet(connection, f"SELECT {columns} FROM {source} ORDER BY {table.key}", staged[table.name])
    return staged


def enrich(connection: Connection, file: Path) -> int:
    """Each policy with its customer, the risk of its region, and its claims; returns the number of policies.

    The connection has the views `staged_customers`, `staged_policies` and `staged_claims`.
    """
    connection.execute(f"CREATE OR REPLACE VIEW region_risk AS FROM read_csv('{REGION_RISK}')")
    return write_parquet(connection, ENRICHED, file)


def build_features(connection: Connection, file: Path, *, as_of: date) -> int:
    """Labelled rows as they were a year before `as_of`, and rows of that day to score; returns how many.

    The connection has the views `staged_claims` and `policies`.
    """
    bucket = "md5_number_lower(customer_id) % 100"
    split = f"CASE WHEN {bucket} < 70 THEN 'train' WHEN {bucket} < 85 THEN 'validation' ELSE 'test' END"
    learned = _features_query(_year_before(as_of), split=split, label="(y.policy_id IS NOT NULL)::INTEGER")
    current = _features_query(as_of, split=f"'{CURRENT}'", label="NULL::INTEGER")
    # The rows are wide: holding them back to keep an order that nobody asks for would take the memory of all of them.
    connection.execute("SET preserve_insertion_order = false")
    try:
        return write_parquet(connection, f"({learned}) UNION ALL ({current})", file)
    finally:
        connection.execute("RESET preserve_insertion_order")


def write_matrices(connection: Connection, folder: Path) -> dict[str, int]:
    """The CSV files of the training job, by split: label first, no header; those to score have neither label nor key.

    The connection has the view `policy_features`. Returns the rows of each file.
    """
    rows = {}
    columns = ", ".join(FEATURES)
    for split in (*SPLITS, CURRENT):
        source = f"FROM policy_features WHERE split = '{split}' ORDER BY policy_id"
        wanted = columns if split == CURRENT else f"{LABEL}, {columns}"
        rows[split] = _write_csv(connection, f"SELECT {wanted} {source}", folder / f"{split}.csv")
        if split == CURRENT:
            _write_csv(connection, f"SELECT policy_id {source}", folder / KEYS_FILE)
    return rows


def join_scores(
    connection: Connection, keys: Path, scores: Path, file: Path, *, as_of: date, model_package_arn: str
) -> int:
    """A probability for each policy, as Parquet; raises ValueError unless there is exactly one for each."""
    counts = [
        connection.execute(f"SELECT count(*) FROM read_csv('{text}', header = false)").fetchone()[0]
        for text in (keys, scores)
    ]
    if counts[0] != counts[1]:
        raise ValueError(f"{counts[1]} scores came for {counts[0]} policies; the job's log may tell why")
    query = (
        f"SELECT k.column0 AS policy_id, s.column0::FLOAT8 AS claim_probability, DATE '{as_of}' AS as_of, "
        f"'{model_package_arn}' AS model_package_arn "
        f"FROM read_csv('{keys}', header = false) k POSITIONAL JOIN read_csv('{scores}', header = false) s"
    )
    return write_parquet(connection, query, file)


def view(connection: Connection, name: str, file: Path) -> None:
    """A Parquet file under a name."""
    connection.execute(f"CREATE OR REPLACE VIEW {name} AS FROM read_parquet('{file}')")


def _features_query(as_of: date, *, split: str, label: str) -> str:
    indicators = ", ".join(
        f"(p.{column} = '{value}')::INTEGER AS {column}_{value}"
        for column, values in INDICATORS.items()
        for value in values
    )
    return FEATURES_ON_A_DAY.format(
        as_of=as_of,
        past=PAST,
        split=split,
        label=label,
        indicators=indicators,
        features=", ".join(f"{name}::FLOAT8 AS {name}" for name in FEATURES),
    )


def _year_before(day: date) -> date:
    # The 29th of February has no other year's day.
    return day.replace(year=day.year - 1, day=min(day.day, 28) if day.month == 2 else day.day)


def _write_csv(connection: Connection, query: str, file: Path) -> int:
    (rows,) = connection.execute(f"COPY ({query}) TO '{file}' (FORMAT csv, HEADER false)").fetchone()
    return int(rows)
