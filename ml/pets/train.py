"""Training job: a ResNet34 that tells cats from dogs, on the GPU when there is one.

Prints `train-loss=…` and `validation-accuracy=…` after each epoch, which SageMaker reads as metrics. SIGTERM (a stop
or a spot interruption) ends training after the current batch with what has been learned; checkpoints let the next job
of the same name go on. What is kept is the epoch that was best on the validation pictures, as ONNX: the application
needs no PyTorch.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import ResNetConfig, ResNetForImageClassification
from transformers.utils import logging as transformers_logging

from ml import contract
from ml.pets import transform
from ml.pets.pictures import LABELS, Array, as_input

# ResNet34: basic blocks, 3-4-6-3 (He et al., https://arxiv.org/abs/1512.03385, table 1).
RESNET34: dict[str, Any] = {
    "layer_type": "basic",
    "depths": [3, 4, 6, 3],
    "hidden_sizes": [64, 128, 256, 512],
    "embedding_size": 64,
}
DEFAULTS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.001,
    "weight_decay": 0.01,
    "seed": 7,
    # A name on Hugging Face such as microsoft/resnet-34, or nothing for random weights.
    "pretrained": "",
}
CHECKPOINT = "checkpoint.pt"
# One is a quarter of a gigabyte, and SageMaker copies each to S3.
CHECKPOINT_SECONDS = 60
MODEL, DESCRIPTION = "model.onnx", "model.json"


class TrainingError(RuntimeError):
    """A training that can't come to a model."""


class Training:
    """One run over the epochs, which a checkpoint can take up again."""

    def __init__(self, settings: dict[str, Any], train: tuple[Array, Array], watch: tuple[Array, Array]):
        self._settings = settings
        self._train, self._watch = train, watch
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = new_model(settings["pretrained"]).to(self._device)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
        )
        self._steps = -(-len(train[0]) // settings["batch_size"])
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            max_lr=settings["learning_rate"],
            total_steps=max(1, settings["epochs"] * self._steps),
        )
        self._epoch, self._best, self._best_state = 0, -1.0, self._copy()
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        self._stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())

    def run(self) -> None:
        """Train until the last epoch or a stop; the model then has its best epoch's weights."""
        self._take_up()
        while self._epoch < self._settings["epochs"] and not self._stop.is_set():
            started = time.monotonic()
            loss = self._one_epoch()
            accuracy = self.accuracy()
            if accuracy > self._best:
                self._best, self._best_state = accuracy, self._copy()
            if self._stop.is_set():
                break  # a part of an epoch is no epoch: the next job begins it again
            self._epoch += 1
            print(
                f"epoch={self._epoch} train-loss={loss:.5f} validation-accuracy={accuracy:.5f} "
                f"seconds={time.monotonic() - started:.1f}",
                flush=True,
            )
            self._write_checkpoint()
        self.model.load_state_dict(self._best_state)

    def accuracy(self) -> float:
        """The share of validation pictures whose label the model tells."""
        self.model.eval()
        size = self._settings["batch_size"]
        with torch.inference_mode():
            told = [
                self._told(self._watch[0][start : start + size])
                for start in range(0, len(self._watch[0]), size)
            ]
        return float((np.concatenate(told) == self._watch[1]).mean())

    def _told(self, pictures: Array) -> Array:
        inputs = torch.from_numpy(as_input(pictures)).to(self._device)
        labels: Array = self.model(pixel_values=inputs).logits.argmax(-1).cpu().numpy()
        return labels

    def _one_epoch(self) -> float:
        """One pass over the training pictures in an order of the epoch's own; returns the mean loss."""
        self.model.train()
        chance = np.random.default_rng([self._settings["seed"], self._epoch])
        pictures, labels = self._train
        order = chance.permutation(len(pictures))
        losses = []
        for start in range(0, len(order), self._settings["batch_size"]):
            if self._stop.is_set():
                break
            chosen = order[start : start + self._settings["batch_size"]]
            if len(chosen) == 1 and start:
                break  # one picture alone has no batch statistics
            inputs = torch.from_numpy(as_input(vary(pictures[chosen], chance))).to(self._device)
            targets = torch.from_numpy(labels[chosen]).to(self._device)
            loss = self.model(pixel_values=inputs, labels=targets).loss
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            self._schedule.step()
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is {losses[-1]} in epoch {self._epoch + 1}; "
                    f"learning_rate {self._settings['learning_rate']} is too high"
                )
        return float(np.mean(losses)) if losses else float("nan")

    def _copy(self) -> dict[str, Any]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _write_checkpoint(self) -> None:
        if not contract.CHECKPOINTS.is_dir() or time.monotonic() < self._next_checkpoint:
            return
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        partial = contract.CHECKPOINTS / ".partial.pt"
        torch.save(
            {
                "epoch": self._epoch,
                "best": self._best,
                "best_state": self._best_state,
                "model": self._copy(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
            },
            partial,
        )
        partial.rename(contract.CHECKPOINTS / CHECKPOINT)

    def _take_up(self) -> None:
        file = contract.CHECKPOINTS / CHECKPOINT
        if not file.is_file():
            return
        state = torch.load(file, map_location=self._device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._epoch, self._best, self._best_state = state["epoch"], state["best"], state["best_state"]
        print(f"going on from epoch {self._epoch}", flush=True)


class Probabilities(torch.nn.Module):  # type: ignore[misc]
    """The model as it is served: pictures in, a probability for each label out."""

    def __init__(self, model: ResNetForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.model(pixel_values=pictures).logits, dim=-1)


def main(_arguments: Sequence[str] = ()) -> None:
    """Train on the channels `train` and `validation`; write `model/model.onnx` and `model/model.json`."""
    settings = read_settings(contract.hyperparameters())
    transformers_logging.disable_progress_bar()
    random.seed(settings["seed"])
    torch.manual_seed(settings["seed"])
    # Threads that wait for one another all stand still when one is held up, so what else runs here gets a core.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    pictures, labels, _ = transform.load(contract.channel("train"))
    watched, watched_labels, _ = transform.load(contract.channel("validation"))
    training = Training(settings, (pictures, labels), (watched, watched_labels))
    training.run()
    contract.MODEL.mkdir(parents=True, exist_ok=True)
    export(training.model, contract.MODEL / MODEL, size=pictures.shape[1])
    described = {"labels": LABELS, "size": pictures.shape[1], "settings": settings}
    (contract.MODEL / DESCRIPTION).write_text(json.dumps(described, indent=2))


def new_model(pretrained: str) -> ResNetForImageClassification:
    """A ResNet34 with the weights of that name, or random ones where none are named or they can't be had."""
    if pretrained:
        try:
            found = ResNetForImageClassification.from_pretrained(
                pretrained, num_labels=len(LABELS), ignore_mismatched_sizes=True
            )
            print(f"weights of {pretrained}", flush=True)
            return found
        except OSError as error:
            reason = str(error).splitlines()[0]
            print(f"no weights of {pretrained}, so it begins with random ones: {reason}", flush=True)
    return ResNetForImageClassification(ResNetConfig(**RESNET34, num_labels=len(LABELS)))


def vary(pictures: Array, chance: np.random.Generator) -> Array:
    """Each picture mirrored or not, and moved by up to a twelfth of its side: what is left of few pictures' bias."""
    reach = pictures.shape[1] // 12
    varied = np.empty_like(pictures)
    for index, picture in enumerate(pictures):
        down, across = (int(value) for value in chance.integers(0, 2 * reach + 1, 2))
        wide = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        moved = wide[down : down + picture.shape[0], across : across + picture.shape[1]]
        varied[index] = moved[:, ::-1] if chance.random() < 0.5 else moved
    return varied


def export(model: ResNetForImageClassification, file: Path, *, size: int) -> None:
    """Write the model as ONNX, for any number of pictures of that size at once."""
    served = Probabilities(model).cpu().eval()
    with warnings.catch_warnings():
        # The exporter that replaces this one needs a further package, and gives the same graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            (torch.zeros(1, 3, size, size),),
            str(file),
            input_names=["pictures"],
            output_names=["probabilities"],
            dynamic_axes={"pictures": {0: "count"}, "probabilities": {0: "count"}},
            dynamo=False,
        )


def read_settings(given: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters with their defaults; raises ValueError for one that is unknown or no number."""
    known = {name: str(value).strip('"') for name, value in given.items() if not name.startswith("_")}
    unknown = sorted(set(known) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown hyper-parameters {', '.join(unknown)}; there are {', '.join(DEFAULTS)}")
    settings: dict[str, Any] = {
        name: known.get(name, "") if default == "" else type(default)(float(known.get(name, default)))
        for name, default in DEFAULTS.items()
    }
    for name in ("epochs", "batch_size"):
        if settings[name] < 1:
            raise ValueError(f"{name}: {settings[name]} came, at least 1 is needed")
    return settings
