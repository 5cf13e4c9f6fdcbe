"""Settings of runs: their flags in errors, what is said of them, and compiled programs kept."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import fresh_flags
from jax.experimental.compilation_cache import compilation_cache

from dvae.train import checkpoint
from experiments import encode
from experiments.cifar_vq.config import Config as VqConfig
from experiments.common import flag_parsers, run
from experiments.joint_vae.config import Config as JointConfig


def test_a_number_that_is_not_whole_is_called_that() -> None:
    values = fresh_flags(VqConfig, None)
    with pytest.raises(Exception, match=r"--num_steps=1e3: it must be a whole number"):
        values(["program", "--num_steps=1e3"])
    assert flag_parsers.WholeParser().parse("12") == 12


def test_errors_of_the_library_name_flags(tmp_path) -> None:
    config = VqConfig(num_steps=100, steps_per_call=3, test_share=0.1)
    with pytest.raises(
        ValueError, match=r"^--num_steps=100 must .* of --steps_per_call=3: .* "
    ) as e:
        config.loop()
    assert "take --num_steps=102 or --steps_per_call=1" in str(e.value)
    with pytest.raises(ValueError, match=r"beside which --test_share=0.1 does nothing"):
        config.load("digits", lambda count: slice(None))


def test_schedules_longer_than_the_run_are_told() -> None:
    (line,) = VqConfig(num_steps=10, kl_warmup_steps=11).remarks()
    assert line == "--kl_warmup_steps=11 exceeds --num_steps=10: the KL never has its full weight"
    assert VqConfig(num_steps=10, kl_warmup_steps=10).remarks() == []
    (line,) = JointConfig(num_steps=10, capacity_steps=11).remarks()
    assert line.startswith("--capacity_steps=11 exceeds --num_steps=10: capacities never reach")
    assert JointConfig(num_steps=10, capacity_steps=11, objective="elbo").remarks() == []


def test_a_second_run_reads_compiled_programs(tmp_path, monkeypatch) -> None:
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    hits = []
    listen = lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
    monkeypatch.setattr(run, "_WORTH_CACHING_SECONDS", 0.0)
    try:
        compilation_cache.reset_cache()
        run.use_compilation_cache(str(tmp_path / "cache"))
        jax.monitoring.register_event_listener(listen)
        for count in (0, 1):
            jax.jit(lambda x: jnp.sin(x) * 3 + 1)(np.ones(3, np.float32))
            assert len(hits) == count
            assert list((tmp_path / "cache").iterdir())
    finally:
        jax.monitoring.unregister_event_listener(listen)
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.parametrize(
    ("dataset", "given", "expected"),
    [
        ("own", {}, (0.2, 8)),
        ("digits", {}, (0.0, 8)),
        ("digits", {"test_share": 0.1, "image_size": 16}, (0.1, 16)),
        ("own", {"test_share": 0.1}, (0.1, 8)),
    ],
)
def test_encode_sets_a_share_apart_where_it_was_or_is_asked_for(
    tmp_path, monkeypatch, dataset, given, expected
) -> None:
    np.savez(tmp_path / "own.npz", train=np.zeros((9, 8, 8), np.uint8))
    own = str(tmp_path / "own.npz")
    fields = {"program": "joint_vae", "dataset": own, "test_share": 0.2, "image_size": 8}
    checkpoint.write_json(tmp_path / "config.json", fields)
    found = []
    model = types.SimpleNamespace(functions=types.SimpleNamespace(check_images=lambda images: None))
    monkeypatch.setattr(encode.trained, "load", lambda *_, **__: model)
    prepare = lambda config: found.append(config) or types.SimpleNamespace(test=None)
    monkeypatch.setattr(encode.programs.room("joint_vae", "task"), "prepare", prepare)
    encode.prepare(encode.Config(**given), tmp_path, own if dataset == "own" else dataset)
    assert (found[0].test_share, found[0].image_size) == expected
