"""Training around pure functions: state and step, loop, sharding, checkpoints, metrics, folders."""

from dvae import _extras

with _extras.needed(__name__, "train"):
    from dvae.train import (
        averaging,
        best,
        checkpoint,
        distributed,
        dry_run,
        feeding,
        lock,
        loop,
        metrics,
        paths,
        sharding,
        signals,
        state,
        status,
    )

__all__ = [
    "averaging",
    "best",
    "checkpoint",
    "distributed",
    "dry_run",
    "feeding",
    "lock",
    "loop",
    "metrics",
    "paths",
    "sharding",
    "signals",
    "state",
    "status",
]
