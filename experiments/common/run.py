"""What the training binaries share: the seeds of a run, and how it is put together."""

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from dvae.data import Dataset, KeepRows
from dvae.train import averaging, checkpoint, distributed, loop, sharding, signals, state, status
from experiments.common import batches, begin, dry_run, flags, records, workdirs
from experiments.common import report as run_report
from experiments.common.config import DEVICE, FILES, HOST, RunConfig

C = TypeVar("C", bound=RunConfig)
_WORTH_CACHING_SECONDS = 1.0
ValidateFn = Callable[[state.TrainState], Mapping[str, Any]]  # on held-out images, on the host


def make_task(
    config: RunConfig,
    init_fn: state.InitFn,
    loss_fn: state.LossFn,
    draw_fn: state.DrawFn,
    optimizer: optax.GradientTransformation,
    *,
    rows: batches.Rows | None = None,
    after: Callable[[state.StepFn], state.StepFn] | None = None,
    average: tuple[float, averaging.Select] | None = None,
    **rest: Any,
) -> loop.Task:
    """Assembles a task, vmapped over the seeds where there are several.

    Args:
      config: seeds and batch size.
      init_fn: makes parameters and model state, see `dvae.train.state.InitFn`.
      loss_fn: what is minimized, see `dvae.train.state.LossFn`.
      draw_fn: draws a step's batch, see `dvae.train.state.DrawFn`.
      optimizer: of the parameters.
      rows: the training images, on the devices or where `config.data_on` says; without them `data`
        must be among the other fields.
      after: makes of the step one that does more after the optimizer's update.
      average: decay of the average that is kept beside the parameters, and of what it is.
      **rest: the other fields of `loop.Task`.
    """
    fed = rows is not None and config.data_on != DEVICE
    fetched = lambda key, data: init_fn(key, data[0][data[1]])
    make_state = lambda key, data: state.init(fetched if fed else init_fn, optimizer, key, data)
    step = state.make_step(loss_fn, draw_fn, optimizer)
    if after is not None:
        step = after(step)
    if average is not None:
        make_plain_state, (decay, of) = make_state, average
        make_state = lambda key, data: averaging.start(make_plain_state(key, data), of=of)
        step = averaging.average(step, of=of, decay=decay)
    keys = [jax.random.split(jax.random.key(config.seed + i), 2) for i in range(config.num_seeds)]
    if config.num_seeds == 1:
        key_init, key_train = keys[0]
    else:
        key_init, key_train = jnp.stack(keys, axis=1)
        axes = (None, 0) if fed else None
        make_state = jax.vmap(make_state, (0, axes))
        step = state.vmap_seeds(step, data_axes=axes)
    if rows is not None:
        rest["data"] = rows.of_init(key_init) if fed else rows.on_devices()
        rest["feed"] = rows.feed(key_train, config.batch_size) if fed else None
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
    prepare: Callable[[C, KeepRows], Dataset],
    make_task: Callable[[C, Dataset, Mesh], loop.Task],
    report: Callable[[C, loop.Result, Dataset, Path, Mesh], run_report.Report],
) -> dict[str, Any]:
    """Trains, or continues, one run and returns its summary.

    Args:
      config: all settings.
      prepare: loads and checks the images, of the training set those that this process keeps.
      make_task: what the loop trains.
      report: evaluates the result, in all processes; the main one then writes what it returns.

    Returns:
      The summary; of a dry run what it measured.

    Raises:
      SystemExit: a setting, the data set or the workdir is unusable; said in one line on stderr.
      NonFiniteError: of the training, see `loop.fit`, or a number of the summary.
      LockedError, StoppedError, PeerError: see `loop.fit`.
    """
    if config.compilation_cache:
        use_compilation_cache(config.compilation_cache)
    workdir = Path(config.workdir or config.default_workdir())
    last_words = lambda: checkpoint.describe_saved(workdir)
    with signals.before_leaving(last_words), distributed.naming_lost_peers():
        with flags.setup():
            if config.coordinator:
                with status.phase("waiting for the other processes", silent=config.process_id > 0):
                    distributed.initialize(
                        config.coordinator, config.num_processes, config.process_id
                    )
            summary = workdirs.examine(config, workdir) if distributed.is_main() else None
        if distributed.any_process(summary is not None):
            if summary is not None:
                workdirs.say_finished(config, workdir, summary)
            return summary or records.read_summary(workdir)
        return _train(config, workdir, prepare, make_task, report)


def use_compilation_cache(folder: str) -> None:
    """Reads compiled programs from a folder, and leaves there what takes a second to compile."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_CACHING_SECONDS)


def _train(
    config: C,
    workdir: Path,
    prepare: Callable[[C, KeepRows], Dataset],
    make_task: Callable[[C, Dataset, Mesh], loop.Task],
    report: Callable[[C, loop.Result, Dataset, Path, Mesh], run_report.Report],
) -> dict[str, Any]:
    """Trains and evaluates a run that is not finished."""
    silent = not distributed.is_main()
    for remark in [] if silent else config.remarks():
        status.say(remark)
    with contextlib.ExitStack() as stack:
        with flags.setup():
            mesh = sharding.make_mesh(config.mesh or None)
            lengths = config.loop()
            sharding.check_batch_size(config.batch_size, mesh)
            with status.phase("loading the data", silent=silent):
                images = prepare(config, functools.partial(sharding.local_rows, mesh))
            if config.data_on == FILES and type(images.train) is np.ndarray:
                raise ValueError(
                    f"--data_on={FILES}: the training images of {images.name} are in memory "
                    "already; it goes with a folder of images or of .npy files, or tfds:NAME, as "
                    f"they are stored; use --data_on={HOST}"
                )
            if config.batch_size > images.num_train:
                raise ValueError(
                    f"--batch_size={config.batch_size} must be at most {images.num_train}, the "
                    f"training images of {images.name}"
                )
            if not len(images.train):
                raise ValueError(
                    f"process {jax.process_index()} of {jax.process_count()} is left without any "
                    f"of the {images.num_train} training images of {images.name}; use fewer "
                    "processes"
                )
            held = None if config.dry_run else stack.enter_context(workdirs.claim(config, workdir))
            if held is not None:
                workdirs.check_images(workdir, images)
        with flags.setup(), status.phase("preparing the training", silent=silent):
            task = make_task(config, images, mesh)
        if config.dry_run:
            return dry_run.report(config, task, images, workdir, mesh)
        result = loop.fit(task, lengths, workdir, mesh, _limit(config, images, workdir))
        ended = time.perf_counter()
        with status.phase(_evaluating(config, images), silent=silent):
            results = report(config, result, images, workdir, mesh)
        summary = results.summary
        run_report.check_finite(summary, workdir)  # in all processes, so that none waits
        if held is not None:
            held.check()
            summary = run_report.save(results, workdir, began=ended)
        distributed.barrier("report")
    return summary


def _evaluating(config: RunConfig, images: Dataset) -> str:
    """Names the final evaluation, with its work if it is far longer than a validation."""
    work = config.evaluation_work(images)
    if not config.eval_interval or work < 10:
        return "evaluating"
    return f"evaluating, with images and samples of {work:.0f} validations"


def _limit(config: RunConfig, images: Dataset, workdir: Path) -> loop.TimeLimit | None:
    """Returns when the program must be over, and how long its end took in an earlier session."""
    if not config.time_limit:
        return None
    until = begin.program_start() + 60 * config.time_limit
    try:
        finishing = records.read_summary(workdir).get(records.FINISHING)
    except (OSError, ValueError):
        finishing = None
    work, rounds = config.evaluation_work(images), config.evaluation_rounds()
    return loop.TimeLimit(until, work, finishing, rounds)


def start(config_class: type[C], presets: flags.Presets, run: Callable[[C], Any]) -> None:
    """Runs an experiment under the flags of its configuration: what `__main__` calls."""

    def main(arguments: list[str]) -> None:
        with flags.setup():
            flags.refuse_words(arguments)
            config = flags.parse(config_class, presets)
        run(config)

    flags.define(config_class, presets)
    flags.run(main)
