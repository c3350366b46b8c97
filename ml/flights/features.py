"""The features of a flight: only what is known before it departs.

The departure's delay would give the answer away, so nothing of the day itself after the schedule is used.
"""

from __future__ import annotations

import pandas as pd

LABEL = "late"
LATE_MINUTES = 15
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
ORIGINS = ("EWR", "JFK", "LGA")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
PLANE = ("plane_year", "seats", "engines")
CALENDAR = (
    "month",
    "day_of_week",
    "scheduled_hour",
    "scheduled_minute",
    "scheduled_duration_minutes",
    "distance",
)
RATES = ("carrier_rate", "dest_rate")
FEATURES = (
    *CALENDAR,
    *WEATHER,
    *PLANE,
    *RATES,
    *(f"carrier_{name}" for name in CARRIERS),
    *(f"origin_{name}" for name in ORIGINS),
)
# Rates of rare carriers and destinations lean on the overall rate by so many flights.
PRIOR_FLIGHTS = 50


def label(flights: pd.DataFrame) -> pd.Series:
    """1 where a flight arrived fifteen minutes late or more."""
    return (flights["arr_delay"] >= LATE_MINUTES).astype(int)


def late_rates(flights: pd.DataFrame, by: str) -> pd.Series:
    """The smoothed share of late flights for each value of a column."""
    late = label(flights)
    overall = late.mean()
    grouped = late.groupby(flights[by]).agg(["sum", "count"])
    return (grouped["sum"] + PRIOR_FLIGHTS * overall) / (grouped["count"] + PRIOR_FLIGHTS)


def build(
    flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame, rates: dict[str, dict[str, float]]
) -> pd.DataFrame:
    """One row of FEATURES for each flight, in the flights' order; what is unknown stays missing."""
    hour = pd.to_datetime(flights["time_hour"], utc=True)
    known = weather.assign(time_hour=pd.to_datetime(weather["time_hour"], utc=True))
    known = known.drop_duplicates(["origin", "time_hour"])
    joined = flights.assign(time_hour=hour).merge(
        known[["origin", "time_hour", *WEATHER]], on=["origin", "time_hour"], how="left"
    )
    fleet = planes.rename(columns={"year": "plane_year"}).drop_duplicates("tailnum")
    joined = joined.merge(fleet[["tailnum", *PLANE]], on="tailnum", how="left")
    day = pd.to_datetime(joined[["year", "month", "day"]])
    columns: dict[str, pd.Series] = {
        "month": joined["month"],
        "day_of_week": day.dt.dayofweek,
        "scheduled_hour": joined["hour"],
        "scheduled_minute": joined["minute"],
        "scheduled_duration_minutes": _minutes(joined["sched_arr_time"]) - _minutes(joined["sched_dep_time"]),
        "distance": joined["distance"],
    }
    columns |= {name: pd.to_numeric(joined[name], errors="coerce") for name in (*WEATHER, *PLANE)}
    overall = rates["overall"]["rate"]
    columns["carrier_rate"] = joined["carrier"].map(rates["carrier"]).fillna(overall)
    columns["dest_rate"] = joined["dest"].map(rates["dest"]).fillna(overall)
    columns |= {f"carrier_{name}": (joined["carrier"] == name).astype(int) for name in CARRIERS}
    columns |= {f"origin_{name}": (joined["origin"] == name).astype(int) for name in ORIGINS}
    return pd.DataFrame(columns)[list(FEATURES)]


def _minutes(clock: pd.Series) -> pd.Series:
    """Minutes since midnight of a time written as HHMM."""
    return clock // 100 * 60 + clock % 100
