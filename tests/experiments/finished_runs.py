"""Directories as finished runs leave them, without the training."""

import dataclasses
import json

import numpy as np
from programs import CONFIGS

# A number of each kind that the programs' summaries hold of a test set.
TEST = {
    "cifar_vq": {
        "bits_per_dim": 6.0,
        "bits_per_dim_standard_error": 0.01,
        "rate_nats": 300.0,
        "distortion_nats": 12000.0,
        "perplexity": [30.0, 40.0],
        "dead_codes": [0, 1],
    },
    "binary_vae": {
        "nll_nats": 108.0,
        "nll_nats_standard_error": 0.2,
        "elbo_nats": -118.0,
        "active_units": 60,
        "effective_samples": 4.2,
    },
    "joint_vae": {
        "distortion_nats": 150.25,
        "rmse": 0.125,
        "elbo_nats": -170.5,
        "kl_continuous_nats": [2.0, 3.0],
        "kl_discrete_nats": [2.25],
        "accuracy": 0.8,
    },
    "dvaepp": {
        "nll_nats": 80.0,
        "nll_nats_standard_error": 0.2,
        "elbo_nats": -88.0,
        "effective_samples": 4.2,
        "kl_global_nats": 1.5,
        "kl_local_nats": [20.0, 3.0],
    },
}


def make(directory, program, test=None, **config):
    """Writes config.json and summary.json of a run of these settings; several seeds are alike."""
    made = CONFIGS[program](**config)
    record = dataclasses.asdict(made)
    several = made.num_seeds > 1
    numbers = {**TEST[program], **(test or {})}
    summary = {
        "dataset": made.dataset,
        "estimator": record.get("estimator"),
        "bound": record.get("bound"),
        "latents": "RBM + normal",
        "test": {
            name: [value] * made.num_seeds if several else value for name, value in numbers.items()
        },
        "seeds": list(range(made.seed, made.seed + made.num_seeds)),
        "num_steps": made.num_steps,
        "epochs": 2.0,
        "evaluated_step": [9] * made.num_seeds if several else 9,
        "baseline": {"bits_per_dim": 7.9},
        "hardware": "1 x cpu",
        "wall_seconds": 90.0,
        "config": record,
        "files": ["samples.png"],
    }
    directory.mkdir(parents=True)
    (directory / "samples.png").touch()
    (directory / "config.json").write_text(json.dumps(record))
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def add_curves(directory, size):
    """Adds the codebook and the validations that `report` draws."""
    np.save(directory / "codebook.npy", np.random.default_rng(size).normal(size=(2, size, 5)))
    lines = [
        {"step": s, "validation/rate": 100.0 + s, "validation/distortion": 14000.0 - 10 * s}
        for s in (50, 100)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return directory
