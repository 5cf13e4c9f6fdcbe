"""A program like the others, of which one phase can be made slow: `python tiny.py --slow=PHASE`."""

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from dvae.data import Dataset
from dvae.train import sharding
from experiments.common import report as run_report
from experiments.common import run as runner
from experiments.common.config import RunConfig
from experiments.common.flags import changed, option

PHASES = (
    "loading",
    "compiling",
    "validating",
    "compiling_validation",
    "stepping",
    "evaluating",
    "drawing",
)
SLOW_SECONDS = 60.0


@dataclass(frozen=True)
class Config(RunConfig):
    """Settings of a mean of a few numbers."""

    program = "tiny"

    slow: str = option("", "The phase that takes a minute.", choices=("", *PHASES), identity=False)
    tied: str = option("no", "Whether the rate depends on the length.", choices=("no", "yes"))
    batch_size: int = changed(RunConfig, "batch_size", 8)
    num_steps: int = changed(RunConfig, "num_steps", 12)
    log_interval: int = changed(RunConfig, "log_interval", 4)
    eval_interval: int = changed(RunConfig, "eval_interval", 4)
    checkpoint_interval: int = changed(RunConfig, "checkpoint_interval", 4)

    def tied_to_length(self):
        return None if self.tied == "no" else "the rate falls over num_steps (--tied=yes)"

    def default_workdir(self):
        return f"runs/tiny-seed{self.seed}"


def wait(config, phase):
    if config.slow == phase:
        time.sleep(SLOW_SECONDS)


def slow_to_compile(value):
    x = value + jnp.arange(64.0)
    for i in range(300):  # what LLVM takes a minute for
        x = jnp.sort(x + jnp.sin(x * i))
    return x.sum()


def prepare(config, keep):
    wait(config, "loading")
    rows = np.arange(64, dtype=np.uint8).reshape(64, 1, 1, 1)
    return Dataset("rows", rows[keep(64)], rows[:8], rows[:8], "none", num_train_of_all=64)


def make_task(config, images, mesh):
    def init(key, rows):
        return jax.random.normal(key, (3,)), ()

    def loss(params, model_state, batch, key, step):
        noise = jax.random.normal(key, (config.batch_size, 3))
        value = jnp.square(batch + noise - params[None]).mean()
        if config.slow == "compiling":
            value += 0 * slow_to_compile(value)
        if config.slow == "stepping":  # calls of minutes, which no Python handler interrupts
            x, times = jnp.ones((500, 500)) + value, jnp.where(step < 5, 1, 10**5)
            # Reverse mode needs a fixed length; nothing is to be learned here.
            x = jax.lax.stop_gradient(x)
            value += 0 * jax.lax.fori_loop(0, times, lambda i, x: jnp.tanh(x @ x), x).sum()
        return value, (model_state, {})

    def draw(key, rows, step):
        chosen = jax.random.randint(jax.random.fold_in(key, step), (config.batch_size,), 0, 64)
        return sharding.shard_batch(mesh, rows[chosen].reshape(-1, 1) / 64.0)

    def evaluate(state):
        if int(state.step) > 4:
            wait(config, "validating")
            if config.slow == "compiling_validation":
                jax.jit(slow_to_compile)(1.0)
        # Each step is worse than the one before, but for the fourteenth.
        step = int(state.step)
        return {"nll": np.float32(-1.0 if step == 14 else step)}

    return runner.make_task(
        config,
        init,
        loss,
        draw,
        optax.adam(1e-2),
        evaluate=evaluate,
        data=sharding.shard_rows(mesh, images.train, images.num_train),
        monitor="nll",
    )


def report(config, result, images, workdir, mesh):
    wait(config, "evaluating")
    best = result.best
    summary = {
        "test": {"best_step": int(best.step), "params": np.asarray(best.params).tolist()},
        **run_report.of_run(config, result, result.state.params),
    }

    def pictures():
        wait(config, "drawing")
        figure = Figure()
        figure.subplots().plot([0, 1])
        return {"line": figure}

    return run_report.Report(summary, "a mean", [], pictures)


def run(config):
    return runner.run(config, prepare=prepare, make_task=make_task, report=report)


if __name__ == "__main__":
    runner.start(Config, {}, run)
