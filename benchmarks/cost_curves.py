"""Time and memory against the sizes that people turn up: codes, latents, chains, samples, batch.

    python benchmarks/cost_curves.py             # ten minutes on a quiet machine
    python benchmarks/cost_curves.py --smoke     # two sizes each, to try the program

Growth is the cost of the largest size over that of the smallest, divided by what the arithmetic,
proportional to the size, grows by: at most 1 if nothing is worse than linear. Memory is what XLA
plans beside arguments and results. Writes docs/results/cost_curves.{json,md,png}.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from _timing import noise

from dvae import analysis, bounds, rbm, relax, vq
from dvae.analysis import tables
from dvae.distributions import bernoulli
from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import config as binary_config
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.cifar_vq import presets as vq_presets
from experiments.common import records

OUT = Path(__file__).parents[1] / "docs" / "results" / "cost_curves"
REPEATS = 7
Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


class Curve(NamedTuple):
    """One size, varied."""

    size: str  # what varies
    what: str  # is computed
    sizes: tuple[int, ...]
    make: Callable[[int], Call]


def doubling(first: int, last: int, factor: int = 2) -> tuple[int, ...]:
    """first, factor first, ... up to last."""
    sizes = [first]
    while sizes[-1] * factor <= last:
        sizes.append(sizes[-1] * factor)
    return tuple(sizes)


def normal(seed: int, *shape: int) -> jax.Array:
    """Normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def nearest(num_codes: int) -> Call:
    """Nearest codes of many vectors."""
    return vq.nearest_code, (normal(0, 16_384, 64), normal(1, num_codes, 64))


def gumbel(num_codes: int) -> Call:
    """A relaxed sample and its gradient."""
    loss = lambda logits, key: (relax.gumbel_softmax.sample(key, logits, 0.5) ** 2).sum()
    return jax.value_and_grad(loss), (normal(0, 4_096, num_codes), jax.random.key(1))


def gibbs(num_chains: int) -> Call:
    """Ten sweeps."""
    machine = rbm.RBM(jnp.zeros(200), jnp.zeros(200), 0.3 * normal(0, 200, 200))
    chains = rbm.gibbs.init(jax.random.key(1), machine, num_chains)
    step = lambda key, state: rbm.gibbs.step(key, machine, state, num_sweeps=10)[0]
    return step, (jax.random.key(2), chains)


def likelihood(num_samples: int) -> Call:
    """log p(x) of 100 images under a linear decoder of 200 bits, ten samples at once."""
    x = jax.random.bernoulli(jax.random.key(0), 0.1, (100, 784)).astype(jnp.float32)

    def estimate(key: jax.Array, logits: jax.Array, weights: jax.Array) -> jax.Array:
        def log_weight(key: jax.Array) -> jax.Array:
            z = bernoulli.sample(key, logits)
            log_px = bernoulli.log_prob(x, z @ weights).sum(-1)
            log_ratio = bernoulli.log_prob(z, logits) - bernoulli.log_prob(z, jnp.zeros(200))
            return log_px - log_ratio.sum(-1)

        return bounds.log_likelihood(key, log_weight, num_samples=num_samples, chunk_size=10).value

    return estimate, (jax.random.key(1), normal(2, 100, 200), 0.1 * normal(3, 200, 784))


def vq_step(**settings: Any) -> Call:
    """A train step of `cifar_vq`."""
    values = {**vq_presets.PRESETS["small"], "batch_size": 16, **settings}
    config = vq_config.Config(**values)
    images = noise((32, 32, 3), 256, max(512, config.batch_size))
    task = cifar_vq.make_task(config, images, sharding.make_mesh(1))
    state = jax.jit(task.init)(task.key_init, task.data)
    return task.step, (state, task.data, task.key_train)


def binary_step(**settings: Any) -> Call:
    """A train step of `binary_vae`."""
    config = binary_config.Config(
        **{"dataset": "mnist_static", "structure": "nonlinear", "num_steps": 10_000, **settings}
    )
    task = binary_vae.make_task(config, noise((28, 28, 1), 2, 5_000), sharding.make_mesh(1))
    state = jax.jit(task.init)(task.key_init, task.data)
    return task.step, (state, task.data, task.key_train)


def curves() -> Iterator[Curve]:
    """All of them."""
    codes = (*doubling(8, 4_096, 4), 4_096)
    yield Curve("codes", "nearest_code, 16,384 vectors of 64", codes, nearest)
    yield Curve("codes", "gumbel_softmax and gradient, 4,096 rows", codes, gumbel)
    for rule in ("gs_soft", "vq_ema"):
        step = f"cifar_vq step, {rule}"
        of_codes = lambda n, rule=rule: vq_step(estimator=rule, codebook_size=n)
        of_latents = lambda n, rule=rule: vq_step(estimator=rule, num_latents=n)
        yield Curve("codes", step, codes, of_codes)
        yield Curve("latents", step, doubling(1, 32), of_latents)
    of_batch = lambda n: vq_step(estimator="gs_soft", batch_size=n)
    yield Curve("batch", "cifar_vq step, gs_soft", doubling(4, 128), of_batch)
    of_batch = lambda n: binary_step(estimator="exponential", batch_size=n)
    yield Curve("batch", "binary_vae step, exponential", doubling(16, 2_048), of_batch)
    of_samples = lambda n: binary_step(estimator="vimco", num_samples=n, batch_size=24)
    yield Curve("samples", "binary_vae step, vimco", doubling(2, 64), of_samples)
    yield Curve("samples", "log-likelihood of 100 images", doubling(50, 6_400), likelihood)
    yield Curve("chains", "gibbs, 200x200, 10 sweeps", doubling(64, 8_192), gibbs)


def measure(calls: list[Call]) -> list[tuple[float, float]]:
    """Returns the median time, ms, and the temporary memory, MB, of each.

    In turn, so that a slow minute of the machine does not bend the curve.
    """
    compiled = [jax.jit(function).lower(*arguments).compile() for function, arguments in calls]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(REPEATS + 2):
        for found, run, (_, arguments) in zip(times, compiled, calls, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(run(*arguments))
            found.append(time.perf_counter() - began)
    memory = [run.memory_analysis().temp_size_in_bytes for run in compiled]
    medians = [1e3 * statistics.median(found[2:]) for found in times]
    return [(ms, 1e-6 * size) for ms, size in zip(medians, memory, strict=True)]


def record(curve: Curve) -> dict[str, Any]:
    """Measures a curve."""
    found = measure([curve.make(size) for size in curve.sizes])
    milliseconds, megabytes = ([round(x, 4) for x in column] for column in zip(*found, strict=True))
    work = curve.sizes[-1] / curve.sizes[0]
    return {
        "size": curve.size,
        "what": curve.what,
        "sizes": curve.sizes,
        "ms": milliseconds,
        "temporary_mb": megabytes,
        "growth_of_time": round(milliseconds[-1] / milliseconds[0] / work, 3),
        "growth_of_memory": round(megabytes[-1] / max(megabytes[0], 1e-6) / work, 3),
        # From one size to the next, where constant costs hide nothing.
        "steepest": round(
            max(
                (milliseconds[i + 1] / milliseconds[i]) / (curve.sizes[i + 1] / curve.sizes[i])
                for i in range(len(curve.sizes) - 1)
            ),
            3,
        ),
    }


def draw(measured: list[dict[str, Any]]) -> None:
    """Draws times and memory on logarithmic axes."""
    panels: dict[str, dict[str, Any]] = {"time, ms": {}, "temporary memory, MB": {}}
    for found in measured:
        values = (found["ms"], [max(x, 1e-3) for x in found["temporary_mb"]])
        for quantity, y in zip(panels, values, strict=True):
            panel = panels[quantity].setdefault(found["size"], {})
            panel[found["what"]] = (found["sizes"], y)
    figure = analysis.figures.convergence(panels, xlabel="size")
    analysis.figures.save(figure, OUT.with_suffix(".png"))


def markdown(measured: list[dict[str, Any]]) -> str:
    """Returns the page."""
    header = (
        *("size", "of", "from", "to", "ms, from", "to", "MB, from", "to"),
        *("growth of time", "of memory", "steepest step"),
    )
    rows = [
        [
            *(r["size"], r["what"], f"{r['sizes'][0]:,}", f"{r['sizes'][-1]:,}"),
            *(f"{r['ms'][i]:.3g}" for i in (0, -1)),
            *(f"{r['temporary_mb'][i]:.3g}" for i in (0, -1)),
            *(f"{r[name]:.2f}" for name in ("growth_of_time", "growth_of_memory", "steepest")),
        ]
        for r in measured
    ]
    return (
        "# Cost curves\n\n"
        f"`python benchmarks/cost_curves.py` on {records.describe_hardware()}; medians of "
        f"{REPEATS} calls, all sizes in turn. Growth: the cost at the last size over that at the "
        "first, divided by the ratio of the sizes, so 1 is linear and less is better. Steepest "
        "step: the same from one size to the next, for time. Memory is what XLA plans beside "
        "arguments and results.\n\n"
        f"{tables.markdown(header, rows)}\n![curves](cost_curves.png)\n"
    )


def main() -> None:
    """Measures and writes all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two sizes each; nothing is written")
    options = parser.parse_args()
    measured = []
    for curve in curves():
        if options.smoke:
            curve = curve._replace(sizes=curve.sizes[:2])
        measured.append(record(curve))
        print(json.dumps(measured[-1]), flush=True)
    if options.smoke:
        return
    OUT.with_suffix(".md").write_text(markdown(measured))
    result = {"hardware": records.describe_hardware(), "curves": measured}
    OUT.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    draw(measured)


if __name__ == "__main__":
    main()
