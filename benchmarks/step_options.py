"""What the options that train steps are compiled with on a CPU save, one left out at a time.

    python benchmarks/step_options.py [--rows=table1,table2,cifar_vq] [--repeats=40]

Each row is the step of a preset, on noise of its size; all forms of a row take turns.
"""

import argparse
from typing import Any

import jax
from _timing import Comparison, compare, noise, show

from dvae.train import _compiler, sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import config as binary_config
from experiments.binary_vae import presets as binary_presets
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets

BITS = (28, 28, 1), 2, 10_000  # shape, levels, training images
ROWS = {  # name -> program, its configuration and presets, preset, images, steps a call
    "table1": (
        binary_vae,
        binary_config.Config,
        binary_presets.PRESETS,
        "table1_nonlinear_exponential_joint",
        BITS,
        100,
    ),
    "table2": (
        binary_vae,
        binary_config.Config,
        binary_presets.PRESETS,
        "table2_cpu_1nonlinear_rbm",
        BITS,
        10,
    ),
    "cifar_vq": (
        cifar_vq,
        vq_config.Config,
        vq_presets.PRESETS,
        "small",
        ((32, 32, 3), 256, 2_000),
        2,
    ),
}
WIDTH, ANALYSIS = _compiler._OF_STEP


def row(name: str, repeats: int) -> Comparison:
    """Times a preset's step."""
    program, configuration, presets, preset, (shape, levels, count), steps = ROWS[name]
    mesh = sharding.make_mesh(1)
    task = program.make_task(configuration(**presets[preset]), noise(shape, levels, count), mesh)
    state = jax.jit(task.init)(task.key_init, task.data)
    arguments = state, task.data, task.key_train
    lowered = jax.jit(task.call(steps)).lower(*arguments)
    options: dict[str, Any] = _compiler.of_step(task, mesh) or {}
    if not {WIDTH, ANALYSIS} <= options.keys():
        raise SystemExit("this XLA, or XLA_FLAGS, leaves no such choice")
    without = lambda *names: {key: value for key, value in options.items() if key not in names}
    forms = {
        "as it is": options,
        "vectors as XLA chooses": without(WIDTH),
        "copies as XLA chooses": without(ANALYSIS),
        "both as XLA chooses": without(WIDTH, ANALYSIS),
    }
    compiled = {label: lowered.compile(compiler_options=chosen) for label, chosen in forms.items()}
    calls = {label: (lambda run=run: run(*arguments)) for label, run in compiled.items()}
    return compare(f"{steps} train steps, {name}: `--preset={preset}`", calls, repeats=repeats)


def main() -> None:
    """Times and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="Programs, comma-separated.")
    parser.add_argument("--repeats", type=int, default=40, help="Timed calls of each form.")
    arguments = parser.parse_args()
    show([row(name, arguments.repeats) for name in arguments.rows.split(",")])


if __name__ == "__main__":
    main()
