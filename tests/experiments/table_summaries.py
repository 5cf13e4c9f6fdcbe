"""Summaries of runs, for the tables that read them."""

import json


def summary(**config):
    return {
        "dataset": "mnist_static",
        "estimator": config.get("estimator", "rebar"),
        "bound": config.get("bound", "joint"),
        "test": {
            "nll_nats": 108.65,
            "nll_nats_standard_error": 0.24,
            "elbo_nats": -118.0,
            "active_units": 60,
            "effective_samples": 4.2,
        },
        "evaluated_step": 290_000,
        "num_steps": 300_000,
        "seeds": [0],
        "hardware": "1 core",
        "wall_seconds": 600.0,
        "config": {
            "dataset": "mnist_static",
            "structure": "linear",
            "estimator": "rebar",
            "num_groups": 1,
            "batch_size": 24,
            "learning_rate": 2e-3,
            "test_samples": 100,
            "num_test_images": 0,
            "num_latents": 200,
            "hidden_units": 200,
            "hidden_layers": 2,
            "workdir": "/somewhere/here",
            **config,
        },
    }


def write(directory, value):
    directory.mkdir()
    (directory / "summary.json").write_text(json.dumps(value))
    return directory
