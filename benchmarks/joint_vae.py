"""A train step of JointVAE: 32x32 gray images, batch 64, ten continuous variables and ten classes.

    python benchmarks/joint_vae.py

`experiments.joint_vae` with the publication's decoder against the same model in PyTorch
(`joint_vae_torch`, which a test compares with ours). Both start from the same parameters.
"""

import jax
from _timing import Comparison, compare, noise, show
from joint_vae_torch import make_step

from dvae.train import _compiler, sharding
from experiments.joint_vae import task as joint_vae
from experiments.joint_vae.config import PRESETS, Config

STEPS = 20  # of one compiled call
AT = 1_000  # the step whose capacities both sides have
CONFIG = Config(**PRESETS["mnist_published"])


def train_step() -> Comparison:
    """Steps of Adam on batches drawn from the set."""
    data, mesh = noise((32, 32, 1), 256, 512), sharding.make_mesh(1)
    task = joint_vae.make_task(CONFIG, data, mesh, lambda *_: {})
    run = jax.jit(task.call(STEPS), compiler_options=_compiler.of_step(task, mesh))
    state = jax.jit(task.init)(task.key_init, task.data)._replace(step=AT)

    def peer(*, compiled: bool) -> object:
        step = make_step(data.train, state.params, compiled=compiled, step=AT)
        return lambda: [step() for _ in range(STEPS)]

    calls = {
        "experiments.joint_vae": lambda: run(state, task.data, task.key_train),
        "PyTorch, compiled": peer(compiled=True),
        "PyTorch, eager": peer(compiled=False),
    }
    return compare(f"{STEPS} train steps of JointVAE, batch {CONFIG.batch_size}", calls, repeats=7)


def comparisons() -> list[Comparison]:
    """Times the step."""
    return [train_step()]


if __name__ == "__main__":
    show(comparisons())
