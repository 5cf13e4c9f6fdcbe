"""Fixtures of the tests of data sets."""

import numpy as np
import pytest

from dvae import data
from dvae.data import _tfds


@pytest.fixture
def fake_tfds(monkeypatch):
    """Stands in for TFDS: every split is a run of numbered images; `missing` names absent sets."""
    missing = set()

    def size(name, split, data_dir):
        if name in missing:
            raise data.DataUnavailableError(f"{name} is missing")
        counts = {"cifar10": 50_000, "binarized_mnist": 50_000}
        return counts.get(name, 60_000) if split == "train" else 10_000

    def read(name, split, data_dir, *, shape, transform=None, rows=None):
        count = size(name, split, data_dir)
        labels = None if name == "binarized_mnist" else np.arange(count, dtype=np.int32)
        # A pixel is enough to follow the splits; the real shape would cost memory.
        level = 1 if name == "binarized_mnist" else 255
        images = np.where(np.arange(count) % 2, level, 0).astype(np.uint8)[:, None, None, None]
        chosen = slice(None) if rows is None else rows
        return images[chosen], None if labels is None else labels[chosen]

    monkeypatch.setattr(_tfds, "read", read)
    monkeypatch.setattr(_tfds, "count", size)
    return missing
