"""Data quality: what a delivery, and what was made of it, must be. Every violation is named at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from airflow.sdk.exceptions import AirflowFailException

from insurance.tables import DELIVERED, Column, Table

EXAMPLES = 3
# A delivery is made every day, and a book of a thousand policies has a claim every other day.
OLDEST_DELIVERY = timedelta(days=2)
LONGEST_SILENCE = timedelta(days=45)
CLAIM_SHARES = (0.005, 0.6)
ROUNDING_USD = 0.01
Connection = Any


class DataQualityError(AirflowFailException):  # type: ignore[misc]
    """Every check that the data did not pass. No retry makes data better, so the task fails at once."""

    def __init__(self, violations: list[Violation]) -> None:
        self.violations = violations
        lines = "\n".join(f"- {violation}" for violation in violations)
        super().__init__(
            f"{len(violations)} violation{'s' * (len(violations) > 1)}; nothing was published:\n{lines}"
        )


@dataclass(frozen=True)
class Violation:
    """What is wrong, at `place` (a table or `table.column`), and the keys of some of the rows."""

    place: str
    problem: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = f" ({', '.join(self.examples)})" if self.examples else ""
        return f"{self.place}: {self.problem}{shown}"


def check_delivery(
    connection: Connection, files: Mapping[str, Path], manifest: Path, *, today: date
) -> dict[str, int]:
    """Hold the CSV files (by table) and the manifest against the agreement; returns the rows of each table.

    Raises DataQualityError. Leaves each table in the connection under its name, with text columns.
    """
    stated = json.loads(manifest.read_text())
    as_of = date.fromisoformat(stated["as_of"])
    violations: list[Violation] = []
    readable: set[str] = set()
    for table in DELIVERED:
        found = _load(connection, table, files[table.name])
        violations += found
        if not found:
            readable.add(table.name)
    for table in DELIVERED:
        if table.name in readable:
            violations += _table_violations(connection, table, as_of, readable)
    rows = {name: _count(connection, f"FROM {name}") for name in sorted(readable)}
    violations += [
        Violation(name, f"{rows[name]} rows came, the manifest says {stated['rows'].get(name)}")
        for name in rows
        if rows[name] != stated["rows"].get(name)
    ]
    violations += _freshness(connection, as_of, today, readable)
    if violations:
        raise DataQualityError(violations)
    return rows


def check_curated(connection: Connection) -> dict[str, float]:
    """Hold what is about to be published against where it came from; returns the figures that were compared.

    The connection has the views `staged_policies`, `staged_claims`, `policies` and `policy_features`.
    Raises DataQualityError.
    """
    violations: list[Violation] = []
    lost = (
        "FROM (SELECT policy_id, count(*) AS times FROM policies GROUP BY policy_id) "
        "FULL JOIN staged_policies USING (policy_id) WHERE times IS DISTINCT FROM 1 OR inception_on IS NULL"
    )
    violations += _rows(
        connection, "policies", "policies not there exactly once after the join", lost, "policy_id"
    )
    unknown = "FROM policies WHERE traffic_index IS NULL"
    violations += _rows(
        connection, "policies.region", "regions that region_risk.csv does not have", unknown, "region"
    )
    staged, curated = (
        _number(connection, query)
        for query in (
            "SELECT coalesce(sum(amount_usd), 0) FROM staged_claims WHERE status <> 'rejected'",
            "SELECT coalesce(sum(claims_usd), 0) FROM policies",
        )
    )
    if abs(staged - curated) > ROUNDING_USD:
        violations.append(
            Violation("policies.claims_usd", f"sums up to {curated:.2f}, the claims to {staged:.2f}")
        )
    violations += _incomplete_features(connection)
    share = _number(
        connection, "SELECT coalesce(avg(label), 0) FROM policy_features WHERE split <> 'current'"
    )
    if not violations and not CLAIM_SHARES[0] <= share <= CLAIM_SHARES[1]:
        violations.append(
            Violation(
                "policy_features.label",
                f"{share:.2%} of the policies had a claim, {CLAIM_SHARES[0]:.1%} to {CLAIM_SHARES[1]:.0%} are possible",
            )
        )
    for split in ("train", "validation", "test"):
        query = f"SELECT count(DISTINCT label) FROM policy_features WHERE split = '{split}'"
        if not violations and _number(connection, query) != 2:
            violations.append(
                Violation("policy_features", f"{split} lacks policies with or without a claim; deliver more")
            )
    if violations:
        raise DataQualityError(violations)
    return {"claims_usd": curated, "claim_share": share}


def _load(connection: Connection, table: Table, file: Path) -> list[Violation]:
    """Read a CSV file as text; what is wrong with its form."""
    try:
        connection.execute(
            f"CREATE OR REPLACE TABLE {table.name} AS FROM read_csv(?, header = true, delim = ',', quote = '\"', "
            "escape = '\"', all_varchar = true, strict_mode = true)",
            [str(file)],
        )
    except duckdb.Error as error:
        return [Violation(table.name, f"is no readable CSV file: {str(error).splitlines()[0]}")]
    came = [row[0] for row in connection.execute(f"DESCRIBE {table.name}").fetchall()]
    agreed = [column.name for column in table.columns]
    return [
        *(Violation(table.name, f"lacks the column {name}") for name in agreed if name not in came),
        *(
            Violation(table.name, f"has a column that nobody agreed to: {name}")
            for name in came
            if name not in agreed
        ),
    ]


def _table_violations(
    connection: Connection, table: Table, as_of: date, readable: set[str]
) -> Iterator[Violation]:
    typed = ", ".join(
        f"TRY_CAST({column.name} AS {column.type}) AS {column.name}" for column in table.columns
    )
    connection.execute(f"CREATE OR REPLACE VIEW typed_{table.name} AS SELECT {typed} FROM {table.name}")
    for column in table.columns:
        yield from _column_violations(connection, table, column)
    repeated = f"FROM {table.name} GROUP BY {table.key} HAVING count(*) > 1"
    yield from _rows(
        connection, f"{table.name}.{table.key}", "keys that appear more than once", repeated, table.key
    )
    for name, other in table.references.items():
        if other in readable:
            key = next(each.key for each in DELIVERED if each.name == other)
            orphans = (
                f"FROM {table.name} WHERE {name} NOT IN (SELECT {key} FROM {other} WHERE {key} IS NOT NULL)"
            )
            yield from _rows(
                connection, f"{table.name}.{name}", f"rows that no row of {other} has", orphans, table.key
            )
    for sentence, condition in table.rules.items():
        where = condition.replace(":as_of", f"DATE '{as_of}'")
        yield from _rows(
            connection, table.name, sentence, f"FROM typed_{table.name} WHERE {where}", table.key
        )


def _column_violations(connection: Connection, table: Table, column: Column) -> Iterator[Violation]:
    place, name = f"{table.name}.{column.name}", column.name
    source = f"FROM {table.name}"
    yield from _rows(connection, place, "rows without a value", f"{source} WHERE {name} IS NULL", table.key)
    if column.type != "VARCHAR":
        wrong = f"{source} WHERE {name} IS NOT NULL AND TRY_CAST({name} AS {column.type}) IS NULL"
        yield from _rows(connection, place, f"values that are no {column.type}", wrong, name)
    if column.allowed:
        listed = ", ".join(f"'{value}'" for value in column.allowed)
        yield from _rows(
            connection, place, f"values other than {', '.join(column.allowed)}",
            f"{source} WHERE {name} NOT IN ({listed})", name,
        )  # fmt: skip
    if column.low is not None or column.high is not None:
        low, high = column.low, column.high
        outside = f"FROM typed_{table.name} WHERE {name} < {low} OR {name} > {high}"
        yield from _rows(connection, place, f"values outside {low} to {high}", outside, table.key)


def _freshness(connection: Connection, as_of: date, today: date, readable: set[str]) -> Iterator[Violation]:
    if not timedelta(0) <= today - as_of <= OLDEST_DELIVERY:
        yield Violation(
            "delivery",
            f"is of {as_of}, today is {today}; it may be {OLDEST_DELIVERY.days} days old and not of a day to come",
        )
    if "claims" in readable:
        (newest,) = connection.execute("SELECT max(reported_on) FROM typed_claims").fetchone()
        if newest is None or as_of - newest > LONGEST_SILENCE:
            yield Violation(
                "claims.reported_on",
                f"the newest is {newest}, in {LONGEST_SILENCE.days} days before {as_of} there is always one",
            )


def _incomplete_features(connection: Connection) -> Iterator[Violation]:
    columns = connection.execute("DESCRIBE policy_features").fetchall()
    for name, kind, *_ in columns:
        if name == "label":
            continue
        wrong = f"{name} IS NULL" + (f" OR NOT isfinite({name})" if kind in ("DOUBLE", "FLOAT") else "")
        yield from _rows(
            connection, f"policy_features.{name}", "rows without a finite value",
            f"FROM policy_features WHERE {wrong}", "policy_id",
        )  # fmt: skip


def _rows(connection: Connection, place: str, problem: str, source: str, shown: str) -> Iterator[Violation]:
    """A violation when `source` (FROM …) has rows, with some values of the expression `shown`."""
    count = _count(connection, source)
    if count:
        examples = connection.execute(f"SELECT DISTINCT {shown} {source} LIMIT {EXAMPLES}").fetchall()
        known = tuple(sorted(str(value) for (value,) in examples if value is not None))
        yield Violation(place, f"{count} {problem}", known)


def _count(connection: Connection, source: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM (SELECT 1 {source})").fetchone()
    return int(count)


def _number(connection: Connection, query: str) -> float:
    (value,) = connection.execute(query).fetchone()
    return float(value)
