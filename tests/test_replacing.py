"""Files that are either complete or as they were, whoever writes them."""

import errno
import os

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from dvae import _replacing
from dvae.analysis import figures
from dvae.boltzmann import Machine, edge_lists, graphs
from dvae.train import checkpoint, metrics
from dvae.trained import _arrays
from experiments import encode, vq_compress

MACHINE = Machine(jnp.zeros(2), jnp.ones(1), graphs.complete(2))
COMPRESSED = vq_compress.Compressed(
    np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), int), np.zeros((1, 1, 1, 3), np.uint8)
)
WRITERS = {
    "a.json": lambda path: checkpoint.write_json(path, {"a": 1}),
    "metrics.jsonl": lambda path: metrics.MetricsWriter(path.parent, 0).close(),
    "a.safetensors": lambda path: _arrays.replace(path, b"new"),
    "a.npz": lambda path: encode.save(path, {"train": np.zeros(2)}),
    "a.csv": lambda path: edge_lists.write(path, MACHINE),
    "b.npz": lambda path: edge_lists.write(path, MACHINE),
    "a.png": lambda path: figures.save(Figure(), path),
    "b.png": lambda path: vq_compress.save_png(path, COMPRESSED),
    "a.md": lambda path: _replacing.replace_text(path, "new"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_cannot_be_completed_stays_as_it_was(tmp_path, monkeypatch, name) -> None:
    path = tmp_path / name
    path.write_text("")
    with monkeypatch.context() as patched:
        full = OSError(errno.ENOSPC, "No space left on device")
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(full))
        with pytest.raises((OSError, ValueError), match="No space left"):
            WRITERS[name](path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(name, b"")]
    WRITERS[name](path)
    assert path.exists()
    assert name == "metrics.jsonl" or path.stat().st_size
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


def test_an_error_in_the_context_leaves_nothing(tmp_path) -> None:
    def write(text):
        with _replacing.replacing(tmp_path / "a") as part:
            part.write_text("half")
            part.write_text(text)

    with pytest.raises(TypeError):
        write(None)
    assert not list(tmp_path.iterdir())
