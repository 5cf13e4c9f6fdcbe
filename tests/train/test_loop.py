"""The loop: resuming bit for bit, stopping, divergence, and compiling once."""

import dataclasses
import gc
import json
import os
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from resuming import assert_resumes_bitwise, assert_same_end, assert_same_records

from dvae.train import lock, loop, sharding, state
from dvae.train.checkpoint import Checkpoints
from dvae.train.metrics import read_metrics

OPTIMIZER = optax.adam(1e-2)
DATA = np.linspace(0, 1, 64, dtype=np.float32).reshape(32, 2)
CONFIG = loop.LoopConfig(num_steps=12, log_interval=2, eval_interval=4, checkpoint_interval=4)


def init_fn(key, data):
    return jax.random.normal(key, (2,)) + data.mean(), ()


def make_task(explode_at=None, on_evaluate=None, traces=None):
    """A small model; `explode_at` makes the loss NaN, `on_evaluate` runs at evaluations."""

    def loss_fn(params, model_state, batch, key, step):
        if traces is not None:
            traces.append(1)
        noise = jax.random.normal(key, batch.shape)
        loss = jnp.mean((batch + 0.1 * noise - params[None]) ** 2)
        if explode_at is not None:
            loss = jnp.where(step == explode_at, jnp.nan, loss)
        return loss, (model_state, {})

    def draw(key, data, step):
        return data[jax.random.randint(jax.random.fold_in(key, step), (8,), 0, len(data))]

    def evaluate(train_state):
        if on_evaluate is not None:
            on_evaluate(int(train_state.step))
        return {"norm": np.linalg.norm(train_state.params)}

    return loop.Task(
        init=lambda key, data: state.init(init_fn, OPTIMIZER, key, data),
        step=state.make_step(loss_fn, draw, OPTIMIZER),
        evaluate=evaluate,
        data=DATA,
        key_init=jax.random.key(0),
        key_train=jax.random.key(1),
        images_per_step=8,
    )


@pytest.fixture(name="mesh")
def make_mesh():
    return sharding.make_mesh(1)


def params_of(result):
    return np.asarray(result.state.params)


def test_uninterrupted_run(tmp_path, mesh) -> None:
    result = loop.fit(make_task(), CONFIG, tmp_path, mesh)
    assert int(result.state.step) == 12
    records = read_metrics(tmp_path)
    assert [r["step"] for r in records if "train/loss" in r] == [2, 4, 6, 8, 10, 12]
    assert [r["step"] for r in records if "validation/norm" in r] == [4, 8, 12]
    assert Checkpoints(tmp_path).latest_step == 12
    assert list((tmp_path / "tensorboard").iterdir())


class Killed(BaseException):
    """Stands for a death that runs no handler of the loop's own."""


def kill_at(step):
    def act(now):
        if now == step:
            raise Killed

    return act


@pytest.mark.many_cases
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_resumed_run_is_bitwise_the_same(tmp_path, mesh, steps_per_call) -> None:
    config = loop.LoopConfig(12, steps_per_call, 2, 4, 4)
    parts = tmp_path / "parts"
    with pytest.raises(Killed):
        loop.fit(make_task(on_evaluate=kill_at(8)), config, parts, mesh)
    assert Checkpoints(parts).latest_step == 4
    _, whole = assert_resumes_bitwise(make_task(), config, parts, mesh)
    assert_same_records(parts, whole)


def test_half_written_checkpoint_is_not_picked_up(tmp_path, mesh, capsys) -> None:
    workdir = tmp_path / "run"
    loop.fit(make_task(), loop.LoopConfig(4, checkpoint_interval=4), workdir, mesh)
    unfinished = workdir / "checkpoints" / "8.orbax-checkpoint-tmp-7"
    (unfinished / "state").mkdir(parents=True)
    (unfinished / "state" / "array_metadatas").write_text("cut off")
    capsys.readouterr()
    assert_resumes_bitwise(make_task(), loop.LoopConfig(12), workdir, mesh)
    assert "continuing from step 4\n" in capsys.readouterr().err
    assert not unfinished.exists()


def test_signal_at_a_validation_leaves_it_to_the_next_start(tmp_path, mesh) -> None:
    config = loop.LoopConfig(12, log_interval=4, eval_interval=4)
    send = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 4 else None
    with pytest.raises(loop.StoppedError, match="after step 8"):
        loop.fit(
            make_task(on_evaluate=send),
            dataclasses.replace(config, steps_per_call=4),
            tmp_path,
            mesh,
        )
    found = lambda: [r["step"] for r in read_metrics(tmp_path) if "validation/norm" in r]
    assert found() == [4]
    loop.fit(make_task(), dataclasses.replace(config, steps_per_call=4), tmp_path, mesh)
    assert found() == [4, 8, 12]


@pytest.mark.many_cases
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_saves_first(tmp_path, mesh, number) -> None:
    send = lambda step: os.kill(os.getpid(), number) if step == 4 else None
    config = loop.LoopConfig(12, log_interval=3, eval_interval=4)
    with pytest.raises(loop.StoppedError, match=f"{number.name} after step 5"):
        loop.fit(make_task(on_evaluate=send), config, tmp_path / "stopped", mesh)
    assert Checkpoints(tmp_path / "stopped").latest_step == 5
    assert_resumes_bitwise(make_task(), config, tmp_path / "stopped", mesh)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path, mesh, monkeypatch) -> None:
    close = Checkpoints.close

    def closing(self):
        os.kill(os.getpid(), signal.SIGTERM)
        close(self)

    monkeypatch.setattr(Checkpoints, "close", closing)
    with pytest.raises(loop.StoppedError, match="SIGTERM after step 12, which is saved"):
        loop.fit(make_task(), CONFIG, tmp_path, mesh)
    assert Checkpoints(tmp_path).latest_step == 12


def test_a_thread_may_train(tmp_path, mesh) -> None:
    results = []
    work = lambda: results.append(loop.fit(make_task(), CONFIG, tmp_path, mesh))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert int(results[0].state.step) == 12


def test_a_second_start_is_refused_and_the_first_goes_on(tmp_path, mesh) -> None:
    refused = []

    def start_again(step):
        def other():
            with pytest.raises(lock.LockedError, match="is in use by this process"):
                loop.fit(make_task(), CONFIG, tmp_path, mesh)
            refused.append(step)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    loop.fit(make_task(on_evaluate=start_again), CONFIG, tmp_path, mesh)
    assert refused == [4, 8, 12]
    assert not (tmp_path / lock.LOCK_FILE).exists()


def test_a_run_whose_directory_was_taken_over_saves_nothing_more(tmp_path, mesh) -> None:
    def take_over(step):
        if step == 8:
            path = tmp_path / lock.LOCK_FILE
            path.write_text(json.dumps({**json.loads(path.read_text()), "token": "other"}))

    with pytest.raises(lock.LockedError, match="took over"):
        loop.fit(make_task(on_evaluate=take_over), CONFIG, tmp_path, mesh)
    assert Checkpoints(tmp_path).latest_step == 4


@pytest.mark.many_cases
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_longer_run_is_bitwise_that_from_the_start(tmp_path, mesh, steps_per_call) -> None:
    lengths = lambda num_steps: loop.LoopConfig(num_steps, steps_per_call, 2, 4, 4)
    for num_steps in (6, 12):
        loop.fit(make_task(), lengths(num_steps), tmp_path / "longer", mesh)
    assert_resumes_bitwise(make_task(), lengths(18), tmp_path / "longer", mesh)


def test_fewer_steps_than_are_saved_are_refused(tmp_path, mesh) -> None:
    loop.fit(make_task(), CONFIG, tmp_path, mesh)
    with pytest.raises(ValueError, match=r"the state of step 12, beyond num_steps=8; train at"):
        loop.fit(make_task(), dataclasses.replace(CONFIG, num_steps=8), tmp_path, mesh)


def test_calls_that_pass_by_the_saved_step_are_refused(tmp_path, mesh) -> None:
    loop.fit(make_task(), loop.LoopConfig(3), tmp_path, mesh)
    config = loop.LoopConfig(12, steps_per_call=2, log_interval=2)
    with pytest.raises(ValueError, match=r"step 3, which calls of .*=2 steps pass by; .* divisor"):
        loop.fit(make_task(), config, tmp_path, mesh)
    loop.fit(make_task(), loop.LoopConfig(12, steps_per_call=3, log_interval=3), tmp_path, mesh)


@pytest.mark.thorough
@pytest.mark.parametrize(("num_devices", "expected"), [(1, 1), (2, 12)])
def test_calls_wait_for_each_other_on_several_cpu_devices_alone(
    tmp_path, monkeypatch, num_devices, expected
) -> None:
    waits, block = [], jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda x: waits.append(1) or block(x))
    config = loop.LoopConfig(12, log_interval=12)
    loop.fit(make_task(), config, tmp_path, sharding.make_mesh(num_devices))
    assert len(waits) == expected  # the first call is waited for on one device, too


def test_finished_run_is_not_trained_again(tmp_path, mesh) -> None:
    first = loop.fit(make_task(), CONFIG, tmp_path, mesh)
    assert_same_end(loop.fit(make_task(explode_at=0), CONFIG, tmp_path, mesh), first)


def test_divergence_names_the_steps_and_keeps_the_checkpoint(tmp_path, mesh) -> None:
    with pytest.raises(
        loop.NonFiniteError, match=r"between steps 5 and 6; the checkpoint of step 4"
    ):
        loop.fit(make_task(explode_at=5), CONFIG, tmp_path, mesh)
    assert Checkpoints(tmp_path).latest_step == 4


def test_a_gradient_that_diverges_inside_of_a_call_shows_in_the_next_loss(tmp_path, mesh) -> None:
    """Its norm is not among the metrics, and the loss of that step is finite."""

    def loss_fn(params, model_state, batch, key, step):
        zero = lambda p: jnp.sqrt(jnp.sum((0 * p) ** 2))  # its gradient is NaN
        loss = jnp.mean((batch - params[None]) ** 2)
        return loss + lax.cond(step == 5, zero, lambda p: 0.0, params), (model_state, {})

    step = state.make_step(loss_fn, lambda key, data, step: data, OPTIMIZER)
    task = make_task()._replace(step=step, last_only=("grad_norm",))
    config = dataclasses.replace(CONFIG, steps_per_call=4, log_interval=4)
    with pytest.raises(loop.NonFiniteError, match=r"grad_norm, loss became .* 5 and 8;.* step 4"):
        loop.fit(task, config, tmp_path, mesh)


def test_step_is_traced_once(tmp_path, mesh) -> None:
    traces = []
    loop.fit(make_task(traces=traces), CONFIG, tmp_path, mesh)
    assert len(traces) == 1


@pytest.mark.thorough
def test_eight_devices_equal_one(tmp_path, mesh) -> None:
    one = loop.fit(make_task(), CONFIG, tmp_path / "one", mesh)
    eight = loop.fit(make_task(), CONFIG, tmp_path / "eight", sharding.make_mesh(8))
    assert len(eight.state.params.sharding.device_set) == 8
    np.testing.assert_allclose(params_of(eight), params_of(one), rtol=1e-6)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (dict(num_steps=0), "at least 1"),
        (
            dict(num_steps=10, steps_per_call=3, log_interval=3),
            "num_steps=10 must be a non-negative multiple",
        ),
        (dict(num_steps=12, steps_per_call=3, log_interval=2), "log_interval=2"),
        (dict(num_steps=12, checkpoint_interval=-1), "checkpoint_interval=-1"),
        (dict(num_steps=4.0), "num_steps=4.0 must be a whole number of steps, of type int"),
        (dict(num_steps=4, eval_interval=1e3), "eval_interval=1000.0 must be a whole number"),
        (dict(num_steps=3_000_000_000), "num_steps=3000000000 must be at most 2147483647"),
        (dict(num_steps=12, eval_interval=2**31), "eval_interval=2147483648 must be at most"),
    ],
)
def test_lengths_that_calls_cannot_keep(lengths, message) -> None:
    with pytest.raises(ValueError, match=message):
        loop.LoopConfig(**lengths)


def test_metrics_cut_off_by_a_kill(tmp_path: Path, mesh) -> None:
    loop.fit(make_task(), loop.LoopConfig(4, log_interval=2, checkpoint_interval=4), tmp_path, mesh)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + json.dumps({"step": 6, "train/loss": 1.0})[:-5])
    loop.fit(make_task(), loop.LoopConfig(6, log_interval=2, checkpoint_interval=2), tmp_path, mesh)
    assert [r["step"] for r in read_metrics(tmp_path)] == [2, 4, 6]


# Ten thousand steps with everything that goes on beside them: records, validations, checkpoints.
@pytest.mark.slow
def test_memory_stays_flat(tmp_path, mesh) -> None:
    pages, arrays = {}, {}

    def measure(step):
        gc.collect()
        arrays[step] = len(jax.live_arrays())
        pages[step] = int(Path("/proc/self/statm").read_text().split()[1])

    config = loop.LoopConfig(10_000, log_interval=10, eval_interval=1_000, checkpoint_interval=500)
    loop.fit(make_task(on_evaluate=measure), config, tmp_path, mesh)
    assert sorted(arrays) == list(range(1_000, 10_001, 1_000))
    assert len(set(arrays.values())) == 1, arrays
    # Allocators and Orbax's threads settle at first; after that less than a kilobyte a step.
    growth = (pages[10_000] - pages[3_000]) * os.sysconf("SC_PAGE_SIZE")
    assert growth < 7_000 * 1_000, pages
