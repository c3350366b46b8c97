"""The delivery of an insurer's core systems: customers, motor policies and claims, made up from a seed.

It stands where a database extract or an SFTP drop would stand. The figures hang together as in a real book: who
drives more, lives in town, is young or had claims before has more of them; the tariff knows part of that; and a
driver's caution, which no system records, makes past claims tell something about the next. Rows are made in chunks,
each from a random stream of its own: the same seed and size give the same rows, and any size takes the same memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from insurance.catalog import DEFECT_NAMES

CHUNK_POLICIES = 50_000
POLICIES_PER_CUSTOMER = 1.3
HISTORY_YEARS = 4.0
YEAR_DAYS = 365.25
CLAIMS_PER_YEAR = 0.082
STALE = timedelta(days=30)
REGION_RISK = Path(__file__).with_name("region_risk.csv")
MANIFEST_FILE = "manifest.json"

OCCUPATIONS = {"office": 1.0, "trade": 1.15, "sales": 1.5, "care": 1.1, "education": 0.9, "farming": 1.2,
               "student": 0.7, "retired": 0.6}  # fmt: skip
# Price when new, share of the book, and how much more often one has a claim.
VEHICLES = {"small": (17_000, 0.32, 1.0), "family": (29_000, 0.30, 0.92), "suv": (43_000, 0.20, 1.05),
            "sports": (58_000, 0.07, 1.55), "van": (34_000, 0.11, 1.2)}  # fmt: skip
COVERAGES = {"liability": 0.62, "partial": 0.85, "full": 1.0}
DEDUCTIBLES_USD = {250: 1.12, 500: 1.0, 1000: 0.88, 2000: 0.74}
CLAIM_KINDS = {"collision": 3_900, "theft": 8_200, "weather": 2_100, "glass": 620, "liability": 5_400}
Frames = dict[str, pd.DataFrame]


def deliver(
    folder: Path, *, policies: int, seed: int, as_of: date, defect: str | None = None
) -> dict[str, int]:
    """Write `customers.csv`, `policies.csv`, `claims.csv` and the manifest; returns the rows of each table.

    `defect` names one of DEFECTS: the delivery is spoilt in that one way.
    """
    if defect is not None and defect not in DEFECTS:
        raise ValueError(f"defect: {defect!r} is not one of {', '.join(DEFECTS)}")
    if defect == "stale":
        as_of -= STALE
    rows = {"customers": 0, "policies": 0, "claims": 0}
    for number, frames in enumerate(chunks(policies=policies, seed=seed, as_of=as_of)):
        for table, frame in frames.items():
            rows[table] += len(frame)
        delivered = DEFECTS[defect](frames) if defect is not None and number == 0 else frames
        for table, frame in delivered.items():
            frame.to_csv(
                folder / f"{table}.csv", index=False, header=number == 0, mode="w" if number == 0 else "a"
            )
    (folder / MANIFEST_FILE).write_text(json.dumps({"as_of": as_of.isoformat(), "rows": rows}))
    return rows


def chunks(*, policies: int, seed: int, as_of: date) -> Iterator[Frames]:
    """The three tables, up to CHUNK_POLICIES policies at a time; no customer's policies are in two chunks."""
    regions = pd.read_csv(REGION_RISK)
    first_customer = first_claim = 1
    for number, first in enumerate(range(0, policies, CHUNK_POLICIES)):
        random = np.random.default_rng([seed, number])
        count = min(CHUNK_POLICIES, policies - first)
        today = np.datetime64(as_of)
        people, caution = _customers(random, max(1, round(count / POLICIES_PER_CUSTOMER)), regions, today)
        contracts, owner = _policies(random, count, people, regions, today)
        rates = _claims_per_year(contracts, people.iloc[owner], regions, caution[owner], today)
        events = _claims(random, contracts, rates, today)
        people.insert(0, "customer_id", _ids("C", first_customer, len(people)))
        contracts.insert(0, "policy_id", _ids("P", first + 1, count))
        contracts.insert(1, "customer_id", people["customer_id"].to_numpy()[owner])
        events["policy_id"] = contracts["policy_id"].to_numpy()[events["policy_id"]]
        events.insert(0, "claim_id", _ids("K", first_claim, len(events)))
        first_customer += len(people)
        first_claim += len(events)
        yield {"customers": people, "policies": contracts, "claims": events}


def _ids(letter: str, first: int, count: int) -> np.ndarray:
    return np.char.mod(f"{letter}%09d", np.arange(first, first + count))


def _pick(random: np.random.Generator, shares: Mapping[str, float], count: int) -> np.ndarray:
    weights = np.array(list(shares.values()))
    return random.choice(np.array(list(shares)), size=count, p=weights / weights.sum())


def _customers(
    random: np.random.Generator, count: int, regions: pd.DataFrame, today: np.datetime64
) -> tuple[pd.DataFrame, np.ndarray]:
    """The customers, and how each one's claims differ from what is recorded of them (1 on average)."""
    age = 18 + 72 * random.beta(1.6, 2.2, count)
    occupation = np.where(
        age > 66, "retired", _pick(random, {**OCCUPATIONS, "retired": 0.0, "student": 0.0}, count)
    )
    occupation = np.where((age < 25) & (random.random(count) < 0.6), "student", occupation)
    tenure = np.minimum(age - 17.5, 25) * random.beta(1.1, 1.6, count) + 0.15
    credit = np.clip(random.normal(655 + 0.9 * (age - 40), 70, count), 300, 850)
    frame = pd.DataFrame(
        {
            "born_on": _before(today, age * YEAR_DAYS),
            "region": _pick(
                random, dict(zip(regions["region"], regions["population_share"], strict=True)), count
            ),
            "occupation": occupation,
            "credit_score": credit.round().astype(int),
            "customer_since": _before(today, tenure * YEAR_DAYS),
        }
    )
    return frame, random.gamma(2.2, 1 / 2.2, count)


def _policies(
    random: np.random.Generator, count: int, people: pd.DataFrame, regions: pd.DataFrame, today: np.datetime64
) -> tuple[pd.DataFrame, np.ndarray]:
    """The policies, and the row of each one's customer."""
    # Each customer has a policy before any has a second one.
    owner = np.concatenate([np.arange(len(people)), random.integers(0, len(people), count - len(people))])
    customer = people.iloc[owner].reset_index(drop=True)
    vehicle = _pick(random, {name: share for name, (_, share, _) in VEHICLES.items()}, count)
    vehicle_age = np.minimum(random.geometric(0.16, count) - 1, 22)
    new = np.array([VEHICLES[name][0] for name in vehicle])
    value = new * np.exp(-0.12 * vehicle_age + random.normal(0, 0.22, count))
    drives = customer["occupation"].map(OCCUPATIONS).to_numpy()
    mileage = np.clip(12_000 * drives * np.exp(random.normal(0, 0.42, count)), 800, 90_000)
    urban = customer["region"].map(regions.set_index("region")["urban_share"]).to_numpy()
    parking = np.where(random.random(count) < 0.15 + 0.5 * urban, "street",
                       np.where(random.random(count) < 0.55, "garage", "driveway"))  # fmt: skip
    draw = random.random(count) + 0.03 * vehicle_age
    coverage = np.where(draw < 0.62, "full", np.where(draw < 0.95, "partial", "liability"))
    tenure_days = (today - customer["customer_since"].to_numpy()).astype(int)
    held_days = np.minimum(tenure_days, 8 * YEAR_DAYS) * random.random(count)
    frame = pd.DataFrame(
        {
            "inception_on": _before(today, held_days),
            "vehicle_class": vehicle,
            "vehicle_age_years": vehicle_age,
            "vehicle_value_usd": value.round(2),
            "annual_mileage_km": mileage.round().astype(int),
            "parking": parking,
            "coverage": coverage,
            "deductible_usd": random.choice(
                np.array(list(DEDUCTIBLES_USD)), size=count, p=[0.2, 0.45, 0.25, 0.1]
            ),
        }
    )
    frame["premium_usd"] = _premium(random, frame, customer, regions, today).round(2)
    return frame, owner


def _premium(
    random: np.random.Generator,
    policies: pd.DataFrame,
    customer: pd.DataFrame,
    regions: pd.DataFrame,
    today: np.datetime64,
) -> np.ndarray:
    """The tariff in USD a year: what an actuary rated years ago, which is part of today's risk."""
    traffic = customer["region"].map(regions.set_index("region")["traffic_index"]).to_numpy()
    age = _years(today, customer["born_on"])
    rated = 1 + 0.6 * (age < 25) + 0.15 * (age > 74)
    return (
        (310 * traffic * rated + 0.011 * policies["vehicle_value_usd"].to_numpy())
        * policies["coverage"].map(COVERAGES).to_numpy()
        * policies["deductible_usd"].map(DEDUCTIBLES_USD).to_numpy()
        * (policies["annual_mileage_km"].to_numpy() / 12_000) ** 0.25
        * np.exp(random.normal(0, 0.1, len(policies)))
    )


def _claims_per_year(
    policies: pd.DataFrame,
    customer: pd.DataFrame,
    regions: pd.DataFrame,
    caution: np.ndarray,
    today: np.datetime64,
) -> np.ndarray:
    """How many claims a year each policy will have on average."""
    place = regions.set_index("region").loc[customer["region"]]
    age = _years(today, customer["born_on"])
    young = np.clip((27 - age) / 9, 0, 1)
    old = np.clip((age - 70) / 15, 0, 1)
    sports = (policies["vehicle_class"] == "sports").to_numpy()
    street = (policies["parking"] == "street").to_numpy()
    full = (policies["coverage"] != "liability").to_numpy()
    score = (
        0.95 * young + 0.5 * old + 0.9 * young * sports
        + 0.75 * np.log(policies["annual_mileage_km"].to_numpy() / 12_000)
        + np.log(policies["vehicle_class"].map({name: factor for name, (_, _, factor) in VEHICLES.items()}).to_numpy())
        + 0.9 * (place["traffic_index"].to_numpy() - 1)
        + full * street * 0.45 * place["theft_index"].to_numpy()
        + full * 0.35 * (place["weather_index"].to_numpy() - 1)
        - 0.0042 * (customer["credit_score"].to_numpy() - 670)
        - 0.12 * (policies["deductible_usd"].to_numpy() >= 1000)
        - 0.45 * ~full
    )  # fmt: skip
    return np.asarray(CLAIMS_PER_YEAR * caution * np.exp(score))


def _claims(
    random: np.random.Generator, policies: pd.DataFrame, per_year: np.ndarray, today: np.datetime64
) -> pd.DataFrame:
    """Every claim of the last HISTORY_YEARS, by the row of its policy."""
    exposed_days = np.minimum(
        (today - policies["inception_on"].to_numpy()).astype(int), HISTORY_YEARS * YEAR_DAYS
    )
    row = np.repeat(np.arange(len(policies)), random.poisson(per_year * exposed_days / YEAR_DAYS))
    count = len(row)
    days_ago = np.floor(random.random(count) * exposed_days[row])
    kind = np.where(
        policies["coverage"].to_numpy()[row] == "liability", "liability",
        _pick(random, {"collision": 0.38, "theft": 0.1, "weather": 0.16, "glass": 0.22, "liability": 0.14}, count),
    )  # fmt: skip
    scale = np.array([CLAIM_KINDS[name] for name in kind])
    amount = np.exp(np.log(scale) + random.normal(0, 0.8, count))
    lost = np.isin(kind, ["collision", "theft", "weather"])
    value = policies["vehicle_value_usd"].to_numpy()[row]
    lag_days = np.minimum(random.geometric(0.12, count) - 1, days_ago)
    status = np.where(random.random(count) < np.exp(-(days_ago - lag_days) / 90), "open", "closed")
    status = np.where((status == "closed") & (random.random(count) < 0.05), "rejected", status)
    return pd.DataFrame(
        {
            "policy_id": row,
            "occurred_on": _before(today, days_ago),
            "reported_on": _before(today, days_ago - lag_days),
            "kind": kind,
            "amount_usd": np.where(lost, np.minimum(amount, value), amount).round(2),
            "status": status,
        }
    )


def _before(today: np.datetime64, days: np.ndarray) -> np.ndarray:
    return np.asarray(today - np.floor(days).astype("timedelta64[D]"))


def _years(today: np.datetime64, dates: pd.Series) -> np.ndarray:
    return np.asarray((today - dates.to_numpy().astype("datetime64[D]")).astype(int) / YEAR_DAYS)


# The ways in which a delivery can be spoilt, each as a real one was.


def _changed(
    table: str, column: str, change: Callable[[pd.Series], object], rows: int
) -> Callable[[Frames], Frames]:
    def spoil(frames: Frames) -> Frames:
        frame = frames[table].copy()
        frame[column] = frame[column].astype(object)
        frame.loc[frame.index[:rows], column] = change(frame[column].iloc[:rows])
        return {**frames, table: frame}

    return spoil


def _lost_column(frames: Frames) -> Frames:
    return {**frames, "policies": frames["policies"].drop(columns="coverage")}


def _repeated_rows(frames: Frames) -> Frames:
    policies = frames["policies"]
    return {**frames, "policies": pd.concat([policies.iloc[:-5], policies.iloc[:5]])}


def _lost_rows(frames: Frames) -> Frames:
    return {**frames, "claims": frames["claims"].iloc[: -len(frames["claims"]) // 10]}


def _as_it_is(frames: Frames) -> Frames:
    return frames


_SPOILT: tuple[Callable[[Frames], Frames], ...] = (
    _lost_column,
    _changed("policies", "annual_mileage_km", lambda _: "12,000 km", 4),
    _changed("customers", "born_on", lambda _: None, 6),
    _repeated_rows,
    _changed("claims", "policy_id", lambda _: "P999999999", 3),
    _changed("claims", "amount_usd", lambda amounts: -amounts, 7),
    _changed("policies", "parking", lambda _: "helipad", 2),
    _changed("claims", "occurred_on", lambda _: "2190-01-01", 1),
    _lost_rows,
    _as_it_is,
    _changed("customers", "region", lambda _: "Atlantis", 8),
)
DEFECTS = dict(zip(DEFECT_NAMES, _SPOILT, strict=True))
