"""Where a session begins, what it saves for a longer run, and how it is left."""

import errno
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resuming import assert_resumes_bitwise, walk

from dvae.train import best, distributed, loop, sharding
from dvae.train._session import start_or_restore
from dvae.train.checkpoint import Checkpoints
from dvae.train.metrics import read_metrics

CONFIG = loop.LoopConfig(num_steps=8, log_interval=2, eval_interval=4, checkpoint_interval=4)
OPTIMIZER = optax.adam(0.1)


make_task = functools.partial(walk, OPTIMIZER)


@pytest.fixture(name="mesh")
def make_mesh():
    return sharding.make_mesh(1)


def leave(session):
    with session.closing():
        pass


@pytest.mark.parametrize("monitor", [None, "norm"])
def test_what_is_saved_is_restored(tmp_path, mesh, monitor) -> None:
    task = make_task(monitor)
    session = start_or_restore(task, CONFIG, tmp_path, mesh)
    assert (session.step, session.saved, session.validated) == (0, None, True)
    assert (session.best is None) == (monitor is None)
    session.began -= 2000
    with session.closing():
        session.advance(1)
        session.record()
        session.validate(lasting=True)
        session.save(validated=True)
    restored = start_or_restore(task, CONFIG, tmp_path, mesh)
    assert (restored.step, restored.saved, restored.validated) == (1, 1, True)
    assert restored.num_calls == 0
    assert 2000 < restored.seconds < 4000, "with those of the session before"
    ends = (session.state, session.best), (restored.state, restored.best)
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(a, b)
    leave(restored)


def test_a_validation_that_a_longer_run_does_not_make_is_not_saved(tmp_path, mesh) -> None:
    session = start_or_restore(make_task(), CONFIG, tmp_path, mesh)
    with session.closing():
        session.advance(1)
        session.validate(lasting=False)
        session.save(validated=False)
    assert int(session.best.step) == 1
    restored = start_or_restore(make_task(), CONFIG, tmp_path, mesh)
    assert not restored.validated
    assert np.isinf(restored.best.value)
    assert int(restored.best.step) == 0
    leave(restored)


@pytest.mark.parametrize("scanned", [False, True])
def test_a_record_has_the_means_of_all_steps_since_the_last(tmp_path, mesh, scanned) -> None:
    session = start_or_restore(make_task(), CONFIG, tmp_path, mesh)
    session.step, session.scanned = 4, scanned
    steps = [{"loss": np.float32(x), "of_seeds": np.float32([x, 0])} for x in (1, 2, 3, 6)]
    calls = [jax.tree.map(lambda *x: np.stack(x), *pair) for pair in (steps[:2], steps[2:])]
    session.pending = calls if scanned else steps
    with session.closing():
        session.record()
    (record,) = read_metrics(tmp_path)
    found = record["step"], record["train/loss"], record["train/of_seeds"]
    assert found == (4, 3.0, [3.0, 0.0])


@pytest.mark.thorough
@pytest.mark.parametrize("monitor", [None, "norm"])
def test_checkpoints_keep_their_layout(tmp_path, mesh, monitor) -> None:
    """Runs of earlier releases go on: the state, with `Best` beside it, and two facts."""
    task = make_task(monitor)
    train_state = jax.jit(task.init)(task.key_init, task.data)
    best_so_far = jax.jit(best.init)(train_state)
    for _ in range(4):
        train_state, _ = jax.jit(task.step)(train_state, task.data, task.key_train)
    norm = np.float32(task.evaluate(train_state)["norm"])
    best_so_far = jax.jit(best.update)(best_so_far, norm, train_state)
    saved = (train_state, best_so_far) if monitor else train_state
    store = Checkpoints(tmp_path / "run")
    store.save(4, saved, {"seconds": 2000.0, "validated": True})
    store.close()
    result, _ = assert_resumes_bitwise(task, CONFIG, tmp_path / "run", mesh)
    assert 2000 < result.seconds < 4000
    # And what is written now reads the same way.
    store = Checkpoints(tmp_path / "run")
    restored, info = store.restore(8, jax.eval_shape(lambda: saved), sharding.replicated(mesh))
    assert set(info) == {"seconds", "validated"}
    assert jax.tree.structure(restored) == jax.tree.structure(saved)


@pytest.mark.parametrize(
    ("error", "num_processes", "raised", "closes"),
    [
        (jax.errors.JaxRuntimeError("gone"), 2, distributed.PeerError, False),
        (distributed.PeerError("gone"), 2, distributed.PeerError, False),
        (jax.errors.JaxRuntimeError("gone"), 1, jax.errors.JaxRuntimeError, True),
        (KeyError(), 2, KeyError, True),
    ],
)
def test_nobody_waits_for_lost_processes(
    tmp_path, mesh, monkeypatch, error, num_processes, raised, closes
) -> None:
    session = start_or_restore(make_task(), CONFIG, tmp_path, mesh)
    closed = []
    close = session.checkpoints.close
    monkeypatch.setattr(session.checkpoints, "close", lambda: closed.append(1))
    monkeypatch.setattr(jax, "process_count", lambda: num_processes)
    with pytest.raises(raised), session.closing():
        raise error
    assert bool(closed) == closes
    monkeypatch.undo()
    close()


def test_a_full_disk_leaves_no_checkpoint_pending(tmp_path, mesh, monkeypatch) -> None:
    """Records that cannot be closed do not keep the last checkpoint from being waited for."""
    session = start_or_restore(make_task(), CONFIG, tmp_path, mesh)
    closed, writer, checkpoints = [], session.writer.close, session.checkpoints.close

    def close_on_full_disk():
        writer()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(session.writer, "close", close_on_full_disk)
    monkeypatch.setattr(session.checkpoints, "close", lambda: closed.append(checkpoints()))
    with pytest.raises(OSError, match="No space"), session.closing():
        pass
    assert closed == [None]


def test_a_path_may_be_a_text(tmp_path, mesh) -> None:
    loop.fit(make_task(), loop.LoopConfig(2), str(tmp_path), mesh)
    assert Checkpoints(tmp_path).latest_step == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shown": ("lost",)}, r"Task.shown names lost, and the metrics are .*loss"),
        ({"monitor": "nrom"}, r"Task.monitor names nrom, and the metrics are norm"),
    ],
)
def test_metrics_that_there_are_not_are_named(tmp_path, mesh, fields, message) -> None:
    with pytest.raises(ValueError, match=message):
        loop.fit(make_task()._replace(**fields), CONFIG, tmp_path, mesh)


def test_a_jitted_evaluation_names_what_it_lacks_before_the_training(tmp_path, mesh) -> None:
    traces = []

    @jax.jit
    def evaluate(state):
        traces.append(1)
        return {"norm": jnp.linalg.norm(state.params)}

    stepped = lambda *_: pytest.fail("a step was traced")
    task = make_task()._replace(evaluate=evaluate)
    with pytest.raises(ValueError, match=r"monitor names nrom, and the metrics are norm"):
        loop.fit(task._replace(monitor="nrom", step=stepped), CONFIG, tmp_path / "nrom", mesh)
    assert not (tmp_path / "nrom" / "metrics.jsonl").exists()
    assert loop.fit(task, CONFIG, tmp_path / "norm", mesh).best is not None
    assert len(traces) == 1


def test_a_folder_that_cannot_be_written(tmp_path, mesh) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"write to workdir .*file/run: Not a .*another workdir$"):
        loop.fit(make_task(), CONFIG, tmp_path / "file" / "run", mesh)
