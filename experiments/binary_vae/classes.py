"""What a run with integer labels leaves behind besides: samples of every class, and their accuracy.

A classifier of scikit-learn, logistic regression of the pixels, is fitted to training images with
their labels. Its accuracy on samples of p(x | y) says whether they look like their class, as far as
its accuracy on test images goes.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from dvae import _extras, analysis, data
from dvae.data import Dataset
from dvae.train import status
from experiments.binary_vae import conditions
from experiments.binary_vae.config import Config
from experiments.binary_vae.evaluation import Evaluator
from experiments.common import evaluation, records
from experiments.common import report as run_report

PyTree = Any
Record = dict[str, Any]
CLASSES, OF_SAMPLES, OF_TEST = "classes", "accuracy_of_samples", "accuracy_of_test_images"
SAMPLES_OF_CLASS = 100
PICTURES_OF_CLASS = 10
MAX_IMAGES = 10_000  # that the classifier is fitted to, and that it is tested on
PENALTY, MAX_ITERATIONS = 10.0, 1_000  # of the squared coefficients; by far enough to converge
SEED = 0  # of pixels that are sampled once


def of_run(
    config: Config, evaluator: Evaluator, params: PyTree, model_state: PyTree, images: Dataset
) -> Record:
    """Returns the part of a summary on samples of the classes; empty without integer labels.

    Args:
      config: everything.
      evaluator: of the model.
      params: of all seeds, at the step that is evaluated.
      model_state: likewise.
      images: the data set.
    """
    count = conditions.condition_of(config, images).num_classes
    if not count:
        return {}
    with status.phase("classifying samples"):
        classifier, num_images = _fit(images)
        pixels, labels = _some(images, "test")
        of_test = float(np.mean(classifier.predict(pixels) == labels))
        labels = np.repeat(np.arange(count, dtype=np.int32), SAMPLES_OF_CLASS)
        accuracies = []
        for own, state in _seeds(config, (params, model_state)):
            levels = evaluator.sample_prior(own, state, len(labels), labels=labels)
            sampled = data.sample_once(levels, SEED).reshape(len(levels), -1)
            accuracies.append(np.mean(classifier.predict(sampled) == labels))
    return {
        CLASSES: {
            OF_SAMPLES: records.per_seed(np.array(accuracies)),
            OF_TEST: round(of_test, 4),
            "num_samples": len(labels),
            "num_classes": count,
            "classifier": f"logistic regression of the pixels of {num_images} training images",
        }
    }


def rows(summary: Record) -> list[run_report.Row]:
    """Returns the line for the terminal."""
    if CLASSES not in summary:
        return []
    record = summary[CLASSES]
    text = f"of {record['num_samples']:,} samples; of test images {record[OF_TEST]:.4g}"
    return [("accuracy", record[OF_SAMPLES], f"{text}, by logistic regression")]


def picture(
    config: Config, evaluator: Evaluator, params: PyTree, model_state: PyTree, images: Dataset
) -> dict[str, Figure]:
    """Draws samples of one seed, a row for each class; nothing without integer labels."""
    count = conditions.condition_of(config, images).num_classes
    if not count:
        return {}
    labels = np.repeat(np.arange(count, dtype=np.int32), PICTURES_OF_CLASS)
    levels = evaluator.sample_prior(params, model_state, len(labels), labels=labels)
    of_class = levels.reshape(count, PICTURES_OF_CLASS, *levels.shape[1:])
    named = {str(label): row for label, row in enumerate(of_class)}
    return {"classes": analysis.figures.image_rows(named, num_columns=PICTURES_OF_CLASS)}


def _fit(images: Dataset) -> tuple[Any, int]:
    """Returns the classifier, and how many training images it was fitted to."""
    _extras.require("the accuracy of samples", "data", "sklearn")
    from sklearn.linear_model import LogisticRegression

    pixels, labels = _some(images, "train")
    classifier = LogisticRegression(C=1 / PENALTY, max_iter=MAX_ITERATIONS)
    return classifier.fit(pixels, labels), len(pixels)


def _some(images: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns binary pixels [N, D] and labels [N] of evenly spaced images."""
    every = getattr(images, split)
    chosen = evaluation.spread_indices(len(every), MAX_IMAGES)
    pixels = np.asarray(every[chosen])
    if split == "train" and images.binarization == "dynamic":
        pixels = data.sample_once(pixels, SEED)
    return pixels.reshape(len(pixels), -1), getattr(images, f"{split}_labels")[chosen]


def _seeds(config: Config, tree: PyTree) -> Iterator[PyTree]:
    """Yields what belongs to each seed."""
    tree = evaluation.with_seed_axis(config, tree)
    for index in range(config.num_seeds):
        yield jax.tree.map(lambda x, index=index: x[index], tree)
