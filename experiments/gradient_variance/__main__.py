"""Measures bias and variance of every gradient estimator against the exact gradient of the ELBO.

    python -m experiments.gradient_variance
    python -m experiments.gradient_variance --estimators=rebar,disarm,exponential --num_draws=10000
    python -m experiments.gradient_variance --num_classes=8 --num_latents=4

A small model of `binary_vae`, with few enough bits that all their states can be enumerated, or one
with categorical variables, at its initialization and after a training: one fixed batch of images,
the same parameters for all. Writes report.md, results.json and bias_and_variance.png.

For an estimate g of the gradient h of the batch's mean ELBO, separately in the parameters of the
encoder (phi) and of decoder and prior (theta),

    bias^2 = |E g - h|^2 / |h|^2        variance = E |g - E g|^2 / |h|^2

so that the mean of M estimates has the relative squared error bias^2 + variance / M. The plain
bias^2 of a mean over N draws is too large by variance / N; here only products of different draws
enter, whose mean is bias^2 itself, of either sign, with a standard error beside it.

VIMCO and local DisARM estimate the gradient of the bound of two samples instead: theirs is that h,
by enumeration of all pairs of states.
"""

import os
import time
from pathlib import Path

from dvae.train import sharding
from experiments.binary_vae import task as binary_vae
from experiments.common import flag_help, flags
from experiments.gradient_variance import report, task
from experiments.gradient_variance.config import Config


def main(arguments: list[str]) -> None:
    """Measures what the command line asks for."""
    start = time.monotonic()
    with flags.setup():
        flags.refuse_words(arguments)
        config = flags.parse(Config)
        out = Path(config.out)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write to {out} ({error.strerror}); try --out") from error
        if not os.access(out, os.W_OK | os.X_OK):
            raise ValueError(f"cannot write to {out} (no permission); try --out")
        mesh = sharding.make_mesh()
        sharding.check_batch_size(config.batch_size, mesh)
        images = binary_vae.prepare(config.experiment())
        if config.batch_size > len(images.train):
            raise ValueError(
                f"--batch_size={config.batch_size} must be at most {len(images.train)}, the "
                f"training images of {images.name}"
            )
    measurement = task.measure(config, images, mesh)
    record = task.record(config, measurement, time.monotonic() - start)
    flag_help.tell(report.write(record, out))
    flag_help.tell(f"written to {out}")


if __name__ == "__main__":
    flags.define(Config)
    flags.run(main)
