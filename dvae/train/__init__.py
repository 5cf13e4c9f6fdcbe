"""Training around pure functions: state and step, loop, sharding, checkpoints, metrics."""

from dvae.train import checkpoint, distributed, loop, metrics, sharding, state

__all__ = ["checkpoint", "distributed", "loop", "metrics", "sharding", "state"]
