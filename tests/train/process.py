"""One of several processes that train a small model together; started by `test_processes`.

    python process.py WORKDIR NUM_STEPS [PORT NUM_PROCESSES PROCESS_ID [DIES_AT [LATE]]]

DIES_AT: the step at whose validation this process kills itself. LATE: its time limit is over.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dvae.data import batches
from dvae.train import checkpoint, distributed, loop, sharding, state

ROWS = np.random.default_rng(0).normal(size=(45, 3)).astype(np.float32)
OPTIMIZER = optax.adam(1e-2)


def make_task(mesh, dies_at):
    """A mean under noise, with a state that the loss keeps beside the parameters."""

    def init_fn(key, rows):
        return jax.random.normal(key, (3,)), jnp.zeros(3)

    def loss_fn(params, average, batch, key, step):
        noise = 0.1 * jax.random.normal(key, batch.shape)
        loss = jnp.square(batch + noise - params[None]).mean()
        return loss, (0.9 * average + 0.1 * batch.mean(0), {})

    def draw(key, rows, step):
        batch = batches.draw(key, rows, step, batch_size=12, num_examples=len(ROWS))
        return sharding.shard_batch(mesh, batch)

    def evaluate(train_state):
        if int(train_state.step) == dies_at:
            time.sleep(3)  # until the checkpoint before is complete
            os.kill(os.getpid(), signal.SIGKILL)
        return {"norm": np.linalg.norm(sharding.fetch(train_state.params))}

    kept = ROWS[sharding.local_rows(mesh, len(ROWS))]
    return loop.Task(
        init=lambda key, rows: state.init(init_fn, OPTIMIZER, key, rows),
        step=state.make_step(loss_fn, draw, OPTIMIZER),
        evaluate=evaluate,
        data=sharding.shard_rows(mesh, kept, len(ROWS)),
        key_init=jax.random.key(0),
        key_train=jax.random.key(1),
        images_per_step=8,
        monitor="norm",
    )


def main(workdir, num_steps, *processes):
    if processes:
        port, count, index = processes[:3]
        distributed.initialize(f"localhost:{port}", int(count), int(index))
    dies_at = int(processes[3]) if len(processes) > 3 else None
    mesh, workdir = sharding.make_mesh(), Path(workdir)
    try:
        checkpoint.prepare_workdir(workdir, {"lr": 1e-2})
        config = loop.LoopConfig(
            int(num_steps), log_interval=2, eval_interval=2, checkpoint_interval=4
        )
        limit = loop.TimeLimit(until=-np.inf) if len(processes) > 4 else None
        result = loop.fit(make_task(mesh, dies_at), config, workdir, mesh, limit)
    except (distributed.PeerError, loop.StoppedError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        distributed.leave(3)
    values = jax.tree.map(lambda x: x.tolist(), sharding.fetch(result.state[1:3]))
    if distributed.is_main():
        (workdir / f"result_{num_steps}.json").write_text(json.dumps(values))
    distributed.barrier("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
