"""Every public function that draws takes typed keys alone, and refuses others in the same words."""

import inspect
import types
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import property_cases
import property_cases_boltzmann
import property_cases_quantizers
import property_cases_rbm
import pytest

from dvae import boltzmann, bounds, distributions, estimators, rbm, relax, vq
from dvae.data import batches

CASES = {
    **property_cases.CASES,
    **property_cases_rbm.CASES,
    **property_cases_quantizers.CASES,
    **property_cases_boltzmann.CASES,
}
FLOATS = jax.ShapeDtypeStruct(property_cases.SHAPE, jnp.float32)
CALLS = {name: (case.function, (FLOATS,) * len(case.ranges)) for name, case in CASES.items()}
IMAGES = (jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.uint8),)
CALLS |= {
    "step.sample": (lambda x: relax.step.sample(jax.random.key(0), x), (FLOATS,)),
    "batches.epoch_indices": (
        lambda: batches.epoch_indices(jax.random.key(0), 0, num_examples=4, batch_size=2),
        (),
    ),
    "batches.draw": (lambda x: batches.draw(jax.random.key(0), x, 0, batch_size=2), IMAGES),
    "batches.binarize": (lambda x: batches.binarize(jax.random.key(0), x), IMAGES),
    "batches.random_crop": (lambda x: batches.random_crop(jax.random.key(0), x, size=2), IMAGES),
    "batches.random_flip": (lambda x: batches.random_flip(jax.random.key(0), x), IMAGES),
}


def random_functions() -> Iterator[str]:
    """Names of those with a key, as the cases have them."""

    def of(module: types.ModuleType, prefix: str) -> Iterator[str]:
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value):
                yield from of(value, f"{prefix}.{name}" if machines else name)
            elif inspect.isfunction(value) and "key" in inspect.signature(value).parameters:
                yield f"{prefix}.{name}"

    for package in (batches, boltzmann, bounds, distributions, estimators, rbm, relax, vq):
        machines = package in (boltzmann, rbm)
        yield from of(package, package.__name__.rsplit(".", 1)[1])


RANDOM = sorted(set(random_functions()))


@pytest.mark.parametrize("name", RANDOM)
def test_only_typed_keys_are_taken(monkeypatch, name):
    made = jax.random.key
    # Of a case that starts chains and moves them, either key is the bad one.
    for seed in (0, 1) if name.endswith(".step") and name != "step.sample" else (0,):
        for bad in (jnp.zeros(2, jnp.uint32), np.zeros(2, np.uint32), 0, None):
            make = lambda s, bad=bad, seed=seed: bad if s == seed else made(s)
            with monkeypatch.context() as patch:
                patch.setattr(jax.random, "key", make)
                function, arrays = CALLS[name]
                with pytest.raises(TypeError, match="key must be a typed key"):
                    jax.eval_shape(function, *arrays)
