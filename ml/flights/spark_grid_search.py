"""A grid search in Spark: one forest for each point of the grid, the best one against the baseline on later flights.

One program for every engine (local Spark in a container, EMR Serverless, Databricks): it is one file, needs nothing
beside PySpark, and reads and writes by path or URI. Trials are compared on the validation flights; only the best one
sees the test flights. Writes below `--output`: `trials` (JSON lines), `report` (one JSON line) and `model` (a
`PipelineModel`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# The matrices have no header: the label comes first, and the scheduled hour is the third feature.
LABEL, HOUR = "_c0", "_c3"
PARALLEL_TRIALS = 2
SEED = 7
Point = dict[str, int]


def main(arguments: Sequence[str] = ()) -> None:
    """Search the grid on the matrices that were prepared for the trainings."""
    from pyspark.sql import SparkSession

    options = _options(arguments)
    spark = SparkSession.builder.appName("flights grid search").getOrCreate()
    spark.sparkContext.setLogLevel("WARN")
    try:
        search(
            spark,
            data={name: _read(spark, getattr(options, name)) for name in ("train", "validation", "test")},
            points=points(json.loads(options.grid)),
            output=options.output.rstrip("/"),
        )
    finally:
        spark.stop()


def points(grid: dict[str, list[int]]) -> list[Point]:
    """Every combination of a grid's values."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def search(spark: SparkSession, *, data: dict[str, DataFrame], points: list[Point], output: str) -> None:
    """Run the trials, write what came out."""
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.feature import Imputer, VectorAssembler

    columns = [name for name in data["train"].columns if name != LABEL]
    filled = [f"{name}_filled" for name in columns]
    # What is unknown, such as a gust of wind, becomes the mean of the flights that are learned from.
    features = Pipeline(
        stages=[
            Imputer(strategy="mean", inputCols=columns, outputCols=filled),
            VectorAssembler(inputCols=filled, outputCol="features"),
        ]
    ).fit(data["train"])
    vectors = {
        name: features.transform(rows).select(LABEL, HOUR, "features").cache() for name, rows in data.items()
    }
    with ThreadPool(PARALLEL_TRIALS) as pool:
        trials = pool.map(lambda point: _trial(point, vectors), points)
    best, forest = max(trials, key=lambda trial: trial[0]["validation_auc"])
    report = {
        **best,
        "test_auc": _auc(forest.transform(vectors["test"])),
        "baseline_auc": _baseline_auc(vectors["train"], vectors["test"]),
        "application_id": spark.sparkContext.applicationId,
        "spark_version": spark.version,
    }
    PipelineModel(stages=[*features.stages, forest]).write().overwrite().save(f"{output}/model")
    _write(spark, [row for row, _ in trials], f"{output}/trials")
    _write(spark, [report], f"{output}/report")
    print(json.dumps(report), flush=True)


def _trial(point: Point, vectors: dict[str, DataFrame]) -> tuple[dict[str, Any], Any]:
    from pyspark.ml.classification import RandomForestClassifier

    started = time.monotonic()
    forest = RandomForestClassifier(
        labelCol=LABEL, maxDepth=point["max_depth"], numTrees=point["n_estimators"], seed=SEED
    ).fit(vectors["train"])
    row = {
        **point,
        "validation_auc": _auc(forest.transform(vectors["validation"])),
        "seconds": round(time.monotonic() - started, 2),
    }
    print(json.dumps(row), flush=True)
    return row, forest


def _auc(scored: DataFrame, score: str = "rawPrediction") -> float:
    from pyspark.ml.evaluation import BinaryClassificationEvaluator

    evaluator = BinaryClassificationEvaluator(
        labelCol=LABEL, rawPredictionCol=score, metricName="areaUnderROC"
    )
    return float(evaluator.evaluate(scored))


def _baseline_auc(train: DataFrame, test: DataFrame) -> float:
    """What an airline's desk knows without a model: how often flights of that hour were late so far."""
    from pyspark.sql import functions as f

    hourly = train.groupBy(HOUR).agg(f.mean(LABEL).alias("rate"))
    overall = train.agg(f.mean(LABEL)).first()[0]
    return _auc(test.join(hourly, HOUR, "left").fillna(overall, subset=["rate"]), "rate")


def _read(spark: SparkSession, path: str) -> DataFrame:
    from pyspark.sql import functions as f

    rows = spark.read.csv(path)
    return rows.select([f.col(name).cast("double").alias(name) for name in rows.columns])


def _write(spark: SparkSession, rows: list[dict[str, Any]], path: str) -> None:
    """JSON lines in one file, wherever the path is."""
    lines = [(json.dumps(row),) for row in rows]
    spark.createDataFrame(lines, ["value"]).coalesce(1).write.mode("overwrite").text(path)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("train", "validation", "test", "output"):
        parser.add_argument(f"--{name}", required=True, help="path or URI")
    parser.add_argument("--grid", required=True, help='JSON: {"max_depth": [4, 8], "n_estimators": [20]}')
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
