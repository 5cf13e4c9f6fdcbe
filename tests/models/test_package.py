"""The package's docstring, and what importing it costs."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from dvae import models


@pytest.mark.thorough
def test_the_example_of_the_docstring_runs() -> None:
    lines = [line.strip() for line in models.__doc__.splitlines() if line.startswith("    ")]
    code = [line for line in lines if "=" in line]
    assert len(code) == 5
    key, key_images, key_codebook = jax.random.split(jax.random.key(0), 3)
    images = jax.random.randint(key_images, (3, 8, 4, 3), 0, 256).astype(jnp.uint8)
    codebook = jax.random.normal(key_codebook, (2, 8, 16))
    scope = {"vq_conv": models.vq_conv, "key": key, "images": images, "codebook": codebook}
    exec("\n".join(code), scope)
    assert scope["log_px"].shape == (3,)
    assert scope["codes"].shape == (3, 2, 1, 2, 16)


def test_every_module_is_named() -> None:
    assert set(models.__all__) <= set(dir(models))
    for name in models.__all__:
        assert f"`{name}`" in models.__doc__
        assert getattr(models, name).__name__ == f"dvae.models.{name}"
    with pytest.raises(AttributeError, match="has no attribute mpl"):
        _ = models.mpl


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, dvae.models; print('flax' in sys.modules, 'jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
