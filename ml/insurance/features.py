"""The features of a policy on a day, in the order of the matrices that the jobs get."""

from __future__ import annotations

LABEL = "label"
VEHICLE_CLASSES = ("small", "family", "suv", "sports", "van")
PARKING = ("garage", "driveway", "street")
COVERAGES = ("liability", "partial", "full")
OCCUPATIONS = ("office", "trade", "sales", "care", "education", "farming", "student", "retired")
FEATURES = (
    "customer_age_years",
    "customer_tenure_years",
    "credit_score",
    "urban_share",
    "traffic_index",
    "theft_index",
    "weather_index",
    "vehicle_age_years",
    "vehicle_value_usd",
    "annual_mileage_km",
    "deductible_usd",
    "premium_usd",
    "premium_per_value",
    "insured_years",
    "past_claims",
    "past_claims_usd",
    "days_since_claim",
    "customer_policies",
    "customer_past_claims",
    *(f"vehicle_class_{name}" for name in VEHICLE_CLASSES),
    *(f"parking_{name}" for name in PARKING),
    *(f"coverage_{name}" for name in COVERAGES),
    *(f"occupation_{name}" for name in OCCUPATIONS),
)
# How a policy is rated without a model: the tariff.
TARIFF = FEATURES.index("premium_usd")
