"""Fixtures of the programs' tests."""

import pytest

from dvae.train import sharding
from experiments.common import run as runner


@pytest.fixture(name="one_device")
def use_one_device(monkeypatch):
    """Eight virtual devices on two busy cores can wait for one another until XLA aborts (40 s)."""
    mesh = sharding.make_mesh(1)
    monkeypatch.setattr(runner.sharding, "make_mesh", lambda *_: mesh)
