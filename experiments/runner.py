"""What the training binaries share: settings of a run, its seeds, and how it is put together."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from dvae.data import Dataset
from dvae.train import checkpoint, loop, sharding, state
from experiments import flags
from experiments.flags import option


@dataclass(frozen=True)
class RunConfig:
    """Settings of every experiment; a subclass adds its own and changes defaults."""

    data_dir: str = option("", "Folder of prepared TFDS data sets.", identity=False)
    workdir: str = option("", "Where results go; named after the run if empty.", identity=False)
    batch_size: int = option(64, "Images a step, over all devices.", minimum=1)
    num_steps: int = option(100_000, "Optimizer steps.", minimum=1)
    steps_per_call: int = option(1, "Steps in one compiled call.", minimum=1)
    seed: int = option(0, "The first seed.", minimum=0)
    num_seeds: int = option(1, "Seeds trained together by vmap: seed, seed + 1, ...", minimum=1)
    log_interval: int = option(100, "Steps between records.", minimum=1)
    eval_interval: int = option(5_000, "Steps between validations; 0 never.", minimum=0)
    num_eval_images: int = option(1_000, "Validation images used while training.", minimum=2)
    num_test_images: int = option(
        0, "Evenly spaced images of each set in the final evaluation; 0 for all.", minimum=0
    )
    eval_batch_size: int = option(100, "Images an evaluation step.", minimum=1)
    checkpoint_interval: int = option(
        5_000, "Steps between checkpoints; 0 only at the end.", minimum=0
    )

    def __post_init__(self) -> None:
        """Raises ValueError for a setting outside its range."""
        flags.check_fields(self)
        if self.num_test_images == 1:
            raise ValueError("--num_test_images=1 has no standard error; use 0 (all) or at least 2")

    def loop(self) -> loop.LoopConfig:
        """Returns the lengths of the run."""
        return loop.LoopConfig(
            self.num_steps,
            self.steps_per_call,
            self.log_interval,
            self.eval_interval,
            self.checkpoint_interval,
        )

    def default_workdir(self) -> str:
        """Returns a name that tells runs of different kinds apart."""
        raise NotImplementedError


C = TypeVar("C", bound=RunConfig)


def make_task(
    config: RunConfig,
    init_fn: state.InitFn,
    loss_fn: state.LossFn,
    draw_fn: state.DrawFn,
    optimizer: optax.GradientTransformation,
    **rest: Any,
) -> loop.Task:
    """Assembles a task, vmapped over the seeds where there are several.

    Args:
      config: seeds and batch size.
      init_fn, loss_fn, draw_fn: see `dvae.train.state`.
      optimizer: of the parameters.
      **rest: the other fields of `loop.Task`.
    """
    make_state = lambda key, data: state.init(init_fn, optimizer, key, data)
    step = state.make_step(loss_fn, draw_fn, optimizer)
    keys = [jax.random.split(jax.random.key(config.seed + i), 2) for i in range(config.num_seeds)]
    if config.num_seeds == 1:
        key_init, key_train = keys[0]
    else:
        key_init, key_train = jnp.stack(keys, axis=1)
        make_state, step = jax.vmap(make_state, (0, None)), state.vmap_seeds(step)
    return loop.Task(
        init=make_state,
        step=step,
        key_init=key_init,
        key_train=key_train,
        images_per_step=config.batch_size * config.num_seeds,
        **rest,
    )


def run(
    config: C,
    *,
    prepare: Callable[[C], Dataset],
    make_task: Callable[[C, Dataset, Mesh], loop.Task],
    write: Callable[[C, loop.Result, Dataset, Path, Mesh], dict[str, Any]],
) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary.

    Args:
      config: all settings.
      prepare: loads and checks the images.
      make_task: what the loop trains.
      write: evaluates the result, leaves its files in the workdir and returns the summary.

    Raises:
      SystemExit: a setting, the data set or the workdir is unusable; said in one line on stderr.
      NonFiniteError, StoppedError: see `loop.fit`.
    """
    workdir = Path(config.workdir or config.default_workdir())
    with flags.setup():
        mesh = sharding.make_mesh()
        lengths = config.loop()
        sharding.check_batch_size(config.batch_size, mesh)
        images = prepare(config)
        if config.batch_size > len(images.train):
            raise ValueError(
                f"--batch_size={config.batch_size} must be at most {len(images.train)}, the "
                f"training images of {images.name}"
            )
        free = flags.free_fields(config)
        checkpoint.prepare_workdir(workdir, dataclasses.asdict(config), free=free)
    task = make_task(config, images, mesh)
    result = loop.fit(task, lengths, workdir, mesh)
    return write(config, result, images, workdir, mesh)


def start(config_class: type[C], presets: flags.Presets, run: Callable[[C], Any]) -> None:
    """Runs an experiment under the flags of its configuration: what `__main__` calls."""

    def main(arguments: list[str]) -> None:
        with flags.setup():
            if len(arguments) > 1:
                raise ValueError(f"unexpected arguments: {' '.join(arguments[1:])}")
            config = flags.parse(config_class, presets)
        run(config)

    flags.define(config_class, presets)
    flags.run(main)
