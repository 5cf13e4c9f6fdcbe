"""Fixtures of the programs' tests."""

import pytest

from dvae import data
from dvae.train import sharding
from experiments.common import run as runner
from experiments.reproduce import manifest, results


@pytest.fixture(name="one_device")
def use_one_device(monkeypatch):
    """Makes a run take one of the eight virtual devices."""
    mesh = sharding.make_mesh(1)
    monkeypatch.setattr(runner.sharding, "make_mesh", lambda *_: mesh)


@pytest.fixture(name="place")
def make_place(tmp_path):
    table = manifest.TABLES["table1"]
    return results.Place(table, tmp_path / "runs", tmp_path / "out")


@pytest.fixture(name="images", scope="session")
def load_images():
    return data.load("digits")


@pytest.fixture(name="patches", scope="session")
def load_patches():
    """Few color images, in numbers that are no multiple of a batch."""
    full = data.load("patches")
    return full._replace(
        train=full.train[:64], validation=full.validation[:20], test=full.test[:20]
    )
