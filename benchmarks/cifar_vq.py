"""A train step of the convolutional VQ model: 64 maps, batch 64, 8x8x8 latents of 512 codes.

    python benchmarks/cifar_vq.py

`experiments.cifar_vq` against the same model in PyTorch (`cifar_vq_torch`, which a test compares
with ours), for the VQ rule and for Gumbel-Softmax. Both start from the same parameters.
"""

import functools

import jax
from _timing import Comparison, compare, noise, show
from cifar_vq_torch import make_step

from dvae.train import _compiler, sharding
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq.config import Config

CONFIG = functools.partial(Config, dataset="cifar10", features=64, batch_size=64)


def step(estimator: str) -> Comparison:
    """One optimizer step, with the batch that it draws."""
    data, config = noise((32, 32, 3), 256, 512), CONFIG(estimator=estimator)
    mesh = sharding.make_mesh(1)
    task = cifar_vq.make_task(config, data, mesh)
    run = jax.jit(task.step, compiler_options=_compiler.of_step(task, mesh))
    state = jax.jit(task.init)(task.key_init, task.data)
    peer = functools.partial(make_step, config, data.train, state.params, device="cpu")
    calls = {
        "experiments.cifar_vq": lambda: run(state, task.data, task.key_train),
        "PyTorch, compiled": peer(compiled=True),
        "PyTorch, eager": peer(compiled=False),
    }
    title = f"train step of the VQ model ({estimator}), 64 maps, batch {config.batch_size}"
    return compare(title, calls, repeats=5, mark="1.4 times PyTorch's speed")


def comparisons() -> list[Comparison]:
    """Times both rules."""
    return [step("vq"), step("gs_soft")]


if __name__ == "__main__":
    show(comparisons())
