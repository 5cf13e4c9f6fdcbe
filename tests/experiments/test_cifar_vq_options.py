"""Options of the training and numbers of the evaluation beyond the paper's, in `cifar_vq`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_runs

from dvae import data, vq
from dvae.train import averaging, checkpoint, loop, sharding
from dvae.train.state import TrainState
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import evaluation as vq_evaluation
from experiments.cifar_vq import model as vq_model
from experiments.cifar_vq import names, quantizers, report
from experiments.cifar_vq import task as cifar_vq_task
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS
from experiments.common import evaluation

BEST = PRESETS["best"]
TINY = {**PRESETS["smoke"], "features": 4, "code_dim": 4, "crop": 8}


@pytest.mark.thorough
def test_likeliest_codes_and_importance_samples_do_not_depend_on_the_batch(patches) -> None:
    results = []
    for size, num_devices in ((20, 1), (7, 8)):
        config = Config(**{**TINY, "eval_batch_size": size})
        mesh = sharding.make_mesh(num_devices)
        task = cifar_vq.make_task(config, patches, mesh)
        start = jax.jit(task.init)(task.key_init, patches.train)
        evaluator = vq_evaluation.Evaluator(config, patches, mesh)
        trained = start.params, start.model_state
        results.append(evaluator.evaluate_others(*trained, patches.test, 3))
    one, other = results
    assert {x.shape for x in (*one, *other)} == {(1, 20)}
    for a, b in zip(one[:2], other[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    # Weights are exponentials of thousands of nats, whose last digit in float32 is 1e-3.
    np.testing.assert_allclose(one.ess, other.ess, rtol=1e-2)
    functions = vq_model.functions(config, patches.train.shape[1:])
    model = vq_model.arrays(*trained)
    codes = functions.encode(model, None, patches.test)
    direct = functions.distortion(model, codes, patches.test)
    np.testing.assert_allclose(results[0].mode_distortion[0], direct, rtol=1e-5)


def summarize(images, **settings):
    config = Config(**{**TINY, **settings})
    task = cifar_vq.make_task(config, images, sharding.make_mesh(1))
    state = jax.eval_shape(task.init, task.key_init, task.data)._replace(step=np.int32(3))
    shape = (config.num_seeds, config.num_test_images or len(images.test))
    counts = np.ones((config.num_seeds, config.num_latents, config.num_codes), int)
    test = vq_evaluation.Evaluation(np.ones(shape), np.ones(shape), counts, 192)
    return report.summarize(config, loop.Result(state, 1.0), images, test)


def test_the_baseline_is_of_the_test_images_that_are_evaluated(patches) -> None:
    found = summarize(patches, num_test_images=5)
    chosen = evaluation.spread(patches.test, 5)
    expected = vq_evaluation.histogram_bits_per_dim(patches.train, chosen)
    assert found["test"]["num_images"] == 5
    assert found["baseline"]["bits_per_dim"] == expected
    assert summarize(patches)["baseline"]["bits_per_dim"] != expected


@pytest.mark.parametrize(
    ("estimator", "num_seeds"), [(names.VQ, 1), (names.VQ_EMA, 1), (names.VQ_EMA, 2)]
)
def test_a_summary_counts_the_parameters_of_the_model_that_is_exported(
    patches, estimator, num_seeds
) -> None:
    found = summarize(patches, estimator=estimator, num_seeds=num_seeds)
    functions = vq_model.functions(
        Config(**{**TINY, "estimator": estimator}), patches.train.shape[1:]
    )
    sizes = [x.size for x in jax.tree.leaves(functions.abstract_params())]
    assert found["num_parameters"] == sum(sizes)


def test_settings_of_a_step_go_by_the_share_of_the_run() -> None:
    config = Config(num_steps=8, temperature_final=0.125, hard_share=0.25)
    steps = np.arange(8, dtype=np.int32)
    expected = [0.5 * 0.25 ** (step / 8) for step in steps]
    at = lambda step: cifar_vq_task.temperature(config, step)
    np.testing.assert_allclose([at(step) for step in steps], expected, rtol=1e-6)
    assert [bool(cifar_vq_task.is_hard(config, step)) for step in steps] == 6 * [False] + 2 * [True]
    assert cifar_vq_task.temperature(Config(), steps[0]) == 0.5
    assert cifar_vq_task.is_hard(Config(estimator=names.GS_HARD), steps[0]) is True


def test_without_validation_all_images_are_trained_on() -> None:
    config = Config(dataset="patches", validation=False, eval_interval=100)
    images = cifar_vq_task.prepare(config)
    assert (images.num_train, len(images.validation), config.eval_interval) == (21_000, 0, 0)


def quantize_by(estimator, v, first, last, basis):
    """A latent variable's vectors [..., D] under what lies between two sets of parameters."""
    between = lambda name: 2 / 11 * first[name] + 9 / 11 * last[name]  # of the first step
    if estimator == "fsq":
        return vq.fsq.quantize(v, (3, 4))
    if estimator in names.SIGNS:
        return getattr(vq, estimator).quantize(v)
    if estimator == "simvq":
        return vq.simvq.quantize(v, basis, between("weights"))
    if estimator == "cosine":
        units = {k: vq.cosine.unit(part["directions"]) for k, part in enumerate((first, last))}
        return vq.cosine.quantize(v, 2 / 11 * units[0] + 9 / 11 * units[1])
    if estimator == "residual":
        return vq.residual.quantize(v, between("codebook"))
    codes = vq.nearest_code(v, between("codebook"))
    return vq.lookup(codes, between("codebook")), codes


@pytest.mark.parametrize("estimator", names.DETERMINISTIC)
def test_averaged_codes_are_chosen_as_the_quantizer_chooses(estimator) -> None:
    settings = {**TINY, "estimator": estimator, "codebook_init": "normal", "levels": "3,4"}
    config = Config(**settings, ema_params=0.998)
    key_v, key_codes, key_start, key_noise = jax.random.split(jax.random.key(0), 4)
    v = jax.random.normal(key_v, (3, 2, 2, config.num_latents, config.vector_dim))
    drawn = jax.random.normal(key_codes, (config.num_latents, config.num_codes, config.vector_dim))
    own, model_state = quantizers.start(config, key_start, v, drawn)
    begin = TrainState(jnp.int32(0), {"network": {}, **own}, model_state, ())
    noise = lambda x: x + jax.random.normal(key_noise, x.shape)
    own = jax.tree.map(noise, own)
    if estimator == "vq_ema":
        model_state = model_state._replace(codebook=noise(model_state.codebook))
    ended = begin._replace(
        step=jnp.int32(1), params={"network": {}, **own}, model_state=model_state
    )
    step = averaging.average(lambda *_: (ended, {}), of=vq_model.arrays, decay=config.ema_params)
    state, _ = step(averaging.start(begin, of=vq_model.arrays), None, None)
    state = vq_model.evaluated(config, state)
    codebook = vq_model.codebook_of(state.params, state.model_state)
    functions = vq_model.functions(config, (8, 8, 1))
    codes = functions._quantize(v, codebook)
    rows = functions.quantized({"codebook": codebook}, codes)
    codes = codes.reshape(*v.shape[:-1], -1)  # stages apart
    for i in range(config.num_latents):
        parts = [
            {"codebook": s.model_state.codebook[i]}
            if estimator == "vq_ema"
            else {name: x[i] for name, x in s.params.items() if name != "network"}
            for s in (begin, ended)
        ]
        basis = model_state.basis[i] if estimator == "simvq" else None
        q, expected = quantize_by(estimator, v[..., i, :], *parts, basis)
        np.testing.assert_array_equal(codes[..., i, :], expected.reshape(*v.shape[:-2], -1))
        np.testing.assert_allclose(rows[..., i, :], q, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_all_options_of_training_together(tmp_path) -> None:
    """The average is what is evaluated and exported; the summary has all three numbers."""
    settings = {**TINY, **BEST, "num_steps": 8, "num_test_images": 16, "hard_share": 0.25}
    settings |= {"validation": False, "kl_warmup_steps": 4, "test_samples": 3, "dtype": "float32"}
    config = Config(**{**settings, "steps_per_call": 2, "workdir": str(tmp_path)})
    summary = cifar_vq.run(config)
    assert summary["test"].keys() >= {"bits_per_dim", "mode_bits_per_dim", "nll_bits_per_dim"}
    assert 1 <= summary["test"]["effective_samples"] <= 3
    assert "no bound" in summary["mode_is"]
    trained_runs.check(tmp_path, summary, data.load("patches").test)
    images = cifar_vq_task.prepare(config)
    mesh = sharding.make_mesh(1)
    task = cifar_vq.make_task(config, images, mesh)
    like = jax.eval_shape(task.init, task.key_init, images.train)
    restored = checkpoint.Checkpoints(tmp_path).restore(8, like, sharding.replicated(mesh))
    state = restored[0]
    codebook = np.load(tmp_path / "codebook.npy")
    np.testing.assert_array_equal(codebook, state.opt_state.average["codebook"])
    assert not np.array_equal(codebook, state.params["codebook"])


def test_a_rule_that_does_not_say_how_it_chooses_codes_is_named(monkeypatch) -> None:
    """It was evaluated and exported by its nearest codes."""
    shape = (32, 32, 3)
    for name in names.ESTIMATORS:
        posterior = vq_model.functions(Config(**{**TINY, "estimator": name}), shape).posterior
        assert (posterior == "nearest") == (name in names.NEAREST)
    monkeypatch.setattr(vq_model, "_POSTERIORS", {})
    with pytest.raises(ValueError, match=r"cifar_vq/model\.py .*--estimator=gs_soft .*_POSTERIORS"):
        vq_model.functions(Config(**TINY), shape)
