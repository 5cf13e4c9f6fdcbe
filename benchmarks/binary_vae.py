"""A train step of the binary VAE, and its 4,000-sample log-likelihood.

    python benchmarks/binary_vae.py

784 pixels, 200 bits, two hidden layers of 200 on either side. `experiments.binary_vae` against the
same model in PyTorch (compiled train step; encoded once, 40 samples decoded at a time).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import numpy as np
import torch
from _timing import Comparison, compare, show
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

from dvae.data import Dataset
from dvae.train import _compiler, sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae.config import Config

PIXELS, BITS, BATCH, BETA = 784, 200, 100, 8.0
STEPS = 50  # of one compiled call
SAMPLES, IMAGES, CHUNK = 4_000, 100, 40
CONFIG = Config(
    dataset="mnist_static",
    structure="nonlinear",
    estimator="exponential",
    bound="joint",
    beta=BETA,
    batch_size=BATCH,
    steps_per_call=STEPS,
    num_steps=100_000,
    log_interval=1_000,
    eval_batch_size=IMAGES,
)


def images() -> Dataset:
    """Binary pixels with the sparsity of digits."""
    rng = np.random.default_rng(0)
    draw = lambda count: (rng.random((count, 28, 28, 1)) < 0.13).astype(np.uint8)
    return Dataset("noise", draw(10_000), draw(IMAGES), draw(IMAGES), "static")


class Model(torch.nn.Module):
    """The same networks, and the joint bound of overlapping exponentials."""

    def __init__(self) -> None:
        super().__init__()
        layers = lambda a, b: torch.nn.Sequential(
            torch.nn.Linear(a, 200),
            torch.nn.Tanh(),
            torch.nn.Linear(200, 200),
            torch.nn.Tanh(),
            torch.nn.Linear(200, b),
        )
        self.encoder, self.decoder = layers(PIXELS, BITS), layers(BITS, PIXELS)
        self.prior = torch.nn.Parameter(torch.zeros(BITS))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """The negative bound, a sample of the smoothing by its closed form."""
        logits = self.encoder(x)
        q, rho = torch.sigmoid(logits), torch.rand_like(logits)
        decay = math.exp(-BETA)
        b = (rho + decay * (q - rho)) / (1 - q) - 1
        c = -(q * decay) / (1 - q)
        zeta = -torch.log((-b + torch.sqrt(b * b - 4 * c)) / 2) / BETA
        likelihood = cross_entropy(self.decoder(2 * zeta - 1), x, reduction="none").sum(-1)
        kl = q * (logits - self.prior) - softplus(logits) + softplus(self.prior)
        return (likelihood + kl.sum(-1)).mean()


def train_step() -> Comparison:
    """Steps of Adam on batches drawn from the set."""
    data = images()
    mesh = sharding.make_mesh(1)
    task = binary_vae.make_task(CONFIG, data, mesh)
    run = jax.jit(task.call(STEPS), compiler_options=_compiler.of_step(task, mesh))
    state = jax.jit(task.init)(task.key_init, task.data)
    pixels = torch.from_numpy(data.train.reshape(-1, PIXELS))
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG.learning_rate)

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()

    compiled = torch.compile(step)

    def pytorch(function: object) -> None:
        for _ in range(STEPS):
            chosen = torch.randint(len(pixels), (BATCH,))
            function(pixels[chosen].float())  # type: ignore[operator]

    calls = {
        "experiments.binary_vae": lambda: run(state, task.data, task.key_train),
        "PyTorch, compiled": lambda: pytorch(compiled),
        "PyTorch, eager": lambda: pytorch(step),
    }
    title = f"{STEPS} train steps of a binary VAE, batch {BATCH}"
    return compare(title, calls, repeats=7, mark="1.3 times the compiled peer's speed")


def log_likelihood() -> Comparison:
    """log p(x) of images with importance samples in the binary limit."""
    data = images()
    config = dataclasses.replace(CONFIG, test_samples=SAMPLES)
    mesh = sharding.make_mesh(1)
    task = binary_vae.make_task(config, data, mesh)
    state = jax.jit(task.init)(task.key_init, task.data)

    def ours(eval_dtype: str) -> Callable[[], np.ndarray]:
        rounded = dataclasses.replace(config, eval_dtype=eval_dtype)
        evaluator = binary_evaluation.Evaluator(rounded, data, mesh)
        return lambda: (
            evaluator.evaluate(
                state.params, state.model_state, data.test, num_samples=SAMPLES
            ).log_likelihood
        )

    model, x = Model(), torch.from_numpy(data.test.reshape(-1, PIXELS)).float()

    @torch.no_grad()
    def pytorch() -> torch.Tensor:
        logits = model.encoder(x)
        p, parts = torch.sigmoid(logits), []
        for _ in range(SAMPLES // CHUNK):
            z = (torch.rand(CHUNK, *p.shape) < p).float()
            log_ratio = z * (logits - model.prior) - softplus(logits) + softplus(model.prior)
            target = x.expand(CHUNK, *x.shape)
            log_px = -cross_entropy(model.decoder(2 * z - 1), target, reduction="none").sum(-1)
            parts.append(log_px - log_ratio.sum(-1))
        return torch.logsumexp(torch.cat(parts), 0) - math.log(SAMPLES)

    calls = {
        "experiments.binary_vae": ours("float32"),
        "--eval_dtype=bfloat16": ours("bfloat16"),
        "PyTorch": pytorch,
    }
    title = f"log-likelihood, {SAMPLES} samples of {IMAGES} images"
    mark = "1.5 times PyTorch's speed, 2.5 times in bfloat16"
    return compare(title, calls, repeats=5, mark=mark)


def comparisons() -> list[Comparison]:
    """Times both."""
    return [train_step(), log_likelihood()]


if __name__ == "__main__":
    show(comparisons())
