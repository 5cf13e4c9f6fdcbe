"""Training around pure functions: state and step, loop, sharding, checkpoints, metrics, folders."""

from dvae.train import (
    best,
    checkpoint,
    distributed,
    lock,
    loop,
    metrics,
    paths,
    schedule,
    session,
    sharding,
    signals,
    state,
    status,
    task,
)

__all__ = [
    "best",
    "checkpoint",
    "distributed",
    "lock",
    "loop",
    "metrics",
    "paths",
    "schedule",
    "session",
    "sharding",
    "signals",
    "state",
    "status",
    "task",
]
