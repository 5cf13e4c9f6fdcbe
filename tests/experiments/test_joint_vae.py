"""`joint_vae`: objectives, devices, seeds, resumed runs, records, mistakes."""

import dataclasses
import json
import shutil

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_runs

from dvae.models import joint
from dvae.train import sharding
from dvae.trained import _settings
from experiments import encode, export
from experiments.common import models, workdirs
from experiments.joint_vae import __main__ as joint_vae
from experiments.joint_vae import evaluation as joint_evaluation
from experiments.joint_vae import model as joint_vae_model
from experiments.joint_vae import report
from experiments.joint_vae import task as joint_vae_task
from experiments.joint_vae.config import PRESETS, Config

TINY = PRESETS["smoke"]


def check_export_and_encode(directory):
    """A model is made again from the last checkpoint, and encodes the data set of the run."""
    folder = directory / "model" / "seed_1"
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(directory / "model")
    with pytest.raises(ValueError, match=r"experiments\.export"):
        encode.prepare(encode.Config(), directory, "digits")
    config = export.read(export.Config(), directory)
    made = export.make(config, joint_vae_task.prepare(config), sharding.make_mesh(1))
    models.save(made, directory / "model")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == written
    check_stale_numbers_are_left_out(config, directory)
    settings = encode.Config(model_seed="1", split="test", codes="sample", batch_size=64)
    model, images = encode.prepare(settings, directory, "digits")
    arrays = encode.encode(settings, model, images)
    count = len(images.test)
    shapes = {name: values.shape for name, values in arrays.items()}
    assert shapes == {
        "test_classes": (count, 2), "test_continuous": (count, 2), "test_labels": (count,),
    }  # fmt: skip
    again = encode.encode(settings, model, images)
    jax.tree.map(np.testing.assert_array_equal, arrays, again)
    none = images._replace(train=images.train[:5], validation=images.validation[:0])
    names = encode.encode(encode.Config(batch_size=100), model, none)
    assert not [name for name in names if name.startswith("validation")]
    with pytest.raises(ValueError, match="--split=validation: digits has no such images"):
        encode.encode(encode.Config(split="validation"), model, none)
    # The mode depends on no batch.
    mode = encode.encode(encode.Config(split="test", batch_size=100), model, images)
    expected = model.encode(None, images.test)
    np.testing.assert_array_equal(mode["test_classes"], expected.classes)
    assert not np.array_equal(mode["test_continuous"], arrays["test_continuous"])
    encode.save(directory / "codes.npz", mode)
    with np.load(directory / "codes.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["test_labels"], images.test_labels)


def check_stale_numbers_are_left_out(config, directory):
    """The numbers of a shorter run are not those of a model that was trained on since."""
    path = directory / "summary.json"
    text = path.read_text()
    summary = json.loads(text)
    path.write_text(json.dumps({**summary, "num_steps": 1, "steps": 1}))
    made = export.make(config, joint_vae_task.prepare(config), sharding.make_mesh(1))
    assert [model.card.metrics for model in made] == [{}, {}]
    path.write_text(text)


@pytest.fixture(name="images", scope="module")
def load_images():
    return joint_vae_task.prepare(Config(**TINY))


def train(config, images, num_devices=1, num_steps=2):
    mesh = sharding.make_mesh(num_devices)
    everywhere = sharding.replicated(mesh)
    task = joint_vae.make_task(config, images, mesh)
    first = jax.jit(task.init, out_shardings=everywhere)(task.key_init, images.train)
    state, step = first, jax.jit(task.step)
    train_data = jax.device_put(task.data, everywhere)
    for _ in range(num_steps):
        state, metrics = step(state, train_data, task.key_train)
    return first, state, metrics


@pytest.mark.thorough
@pytest.mark.parametrize(
    "objective",
    ["capacity", *(pytest.param(name, marks=pytest.mark.slow) for name in ("elbo", "beta"))],
)
def test_every_parameter_moves(images, objective) -> None:
    first, after, metrics = train(Config(**{**TINY, "objective": objective}), images)
    paths = jax.tree_util.tree_leaves_with_path(after.params)
    for (path, a), b in zip(paths, jax.tree.leaves(first.params), strict=True):
        assert not np.array_equal(a, b), jax.tree_util.keystr(path)
    assert all(np.isfinite(value) for value in metrics.values())
    names = {"kl_continuous_1", "kl_continuous_2", "kl_discrete_1", "distortion"}
    assert names <= set(metrics)
    assert ("capacity_discrete" in metrics) == (objective == "capacity")


def test_without_validation_all_images_are_trained_on(images) -> None:
    """Each process keeps its rows of both together, and nothing is validated."""
    config = Config(**{**TINY, "validation": False})
    assert config.eval_interval == 0
    half = joint_vae_task.prepare(config, lambda count: slice(count // 2, count))
    both = np.concatenate([images.train, images.validation])
    np.testing.assert_array_equal(half.train, both[len(both) // 2 :])
    assert (half.num_train, len(half.validation)) == (len(both), 0)
    labels = np.concatenate([images.train_labels, images.validation_labels])
    np.testing.assert_array_equal(half.train_labels, labels[len(both) // 2 :])
    published = Config(**PRESETS["mnist_published"])
    epochs = published.num_steps / (60_000 // published.batch_size)
    assert (epochs, published.model_config((32, 32, 1)).decoder_features) == (100, 32)


def test_images_that_are_cropped_are_said(tmp_path, capsys) -> None:
    for width, line in (
        (20, "own.npz: the middle square of 16x20 pixels, resized to 8x8; --image_size=0 keeps"),
        (16, ""),
    ):
        levels = np.random.default_rng(0).integers(0, 256, (20, 16, width), np.uint8)
        np.savez(tmp_path / "own.npz", train=levels, test=levels)
        config = Config(**{**TINY, "dataset": str(tmp_path / "own.npz"), "image_size": 8})
        assert joint_vae_task.prepare(config).test.shape == (20, 8, 8, 1)
        said = capsys.readouterr().err
        assert line in said
        assert bool(said) == bool(line)


def test_runs_and_models_of_the_wider_decoder_are_known(tmp_path) -> None:
    """Records that are older than the narrow decoder mean the wide one, or are refused by name."""
    config = Config(**TINY, workdir=str(tmp_path))
    new = {"decoder_features", "validation"}
    saved = {k: v for k, v in dataclasses.asdict(config).items() if k not in new}
    (tmp_path / "config.json").write_text(json.dumps({"program": "joint_vae", **saved}))
    assert workdirs.examine(config, tmp_path) is None  # it may go on
    for name, value in (("decoder_features", 1), ("validation", False)):
        with pytest.raises(ValueError, match=name):
            workdirs.examine(dataclasses.replace(config, **{name: value}), tmp_path)
    network = _settings.to_json(config.model_config((8, 8, 1)))
    del network["decoder_features"]
    assert _settings.from_json(joint.JointConfig, network) == config.model_config((8, 8, 1))


def test_the_training_loss_is_the_negative_objective() -> None:
    config = Config(**{**TINY, "capacity_continuous": 4.0, "capacity_steps": 4, "gamma": 10.0})
    each = lambda *values: np.float32(values)[None, :, None]
    fit = joint_evaluation.Evaluation(
        codes=np.zeros((1, 2, 1), np.int32),
        distortion=np.float32([[100.0, 102.0]]),
        squared_error=np.zeros((1, 2)),
        elbo=np.zeros((1, 2)),
        kl_continuous=each(3.0, 6.0),
        kl_discrete=each(0.5, 0.7),
    )
    loss = report._training_loss(config, fit, steps=8)
    np.testing.assert_allclose(loss, [101 + 10 * (0.5 + np.log(3) - 0.6)], rtol=1e-5)


def test_penalties_against_their_definitions() -> None:
    kl = joint.Divergences(jnp.array([[1.0, 2.0], [3.0, 1.0]]), jnp.array([[0.5], [0.9]]))
    base = {**TINY, "capacity_continuous": 8.0, "capacity_steps": 100, "gamma": 10.0}
    penalty, capacities = joint_vae_task.penalty(Config(**base), kl, jnp.int32(50))
    # C_h = 8/2, C_c = min(5/2, log 3), KL_h = 3.5, KL_c = 0.7 in the mean.
    np.testing.assert_allclose(capacities["capacity_continuous"], 4.0)
    np.testing.assert_allclose(capacities["capacity_discrete"], np.log(3), rtol=1e-6)
    expected = 10 * (abs(3.5 - 4) + abs(0.7 - np.log(3)))
    np.testing.assert_allclose(penalty, expected, rtol=1e-5)
    for settings, weight in ((dict(objective="elbo"), 1), (dict(objective="beta"), 4)):
        value, none = joint_vae_task.penalty(Config(**{**TINY, **settings}), kl, jnp.int32(50))
        np.testing.assert_allclose(value, weight * 4.2, rtol=1e-6)
        assert not none


def test_objective_is_the_elbo_of_samples(images) -> None:
    """With sharp codes the relaxed objective is the ELBO that the evaluation estimates."""
    config = Config(**{**TINY, "objective": "elbo", "discrete": "3,2", "temperature": 0.01})
    module = joint_vae_task.model(config, images)
    loss = jax.jit(joint_vae_task.loss_fn(config, module))
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    x = images.test[:8]
    keys = jax.random.split(jax.random.key(1), 400)
    one = lambda key: loss(params, (), x, key, jnp.int32(0))[1][1]["objective"]
    trained = jax.lax.map(one, keys)
    evaluator = joint_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    arrays, evaluate = joint_vae_model.arrays(params), jax.jit(evaluator._functions.evaluate)
    elbo = lambda key: evaluate(arrays, key, jnp.asarray(x))[3].mean()
    evaluated = jax.lax.map(elbo, jax.random.split(jax.random.key(2), 400))
    error = np.sqrt((trained.var() + evaluated.var()) / 400)
    assert abs(trained.mean() - evaluated.mean()) < 5 * error
    assert error < 0.1


@pytest.mark.thorough
def test_eight_devices_train_like_one(images) -> None:
    config = Config(**TINY)
    (_, one, metrics), (_, eight, shared) = (train(config, images, n) for n in (1, 8))
    for name, value in metrics.items():
        np.testing.assert_allclose(shared[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
def test_seeds_trained_together_are_those_trained_alone(images) -> None:
    together = train(Config(**{**TINY, "num_seeds": 2, "seed": 3}), images)[1]
    alone = train(Config(**{**TINY, "seed": 4}), images)[1]
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=2e-5)


@pytest.mark.thorough
def test_traversals_move_one_variable_at_a_time(images) -> None:
    config = Config(**{**TINY, "discrete": "3,2"})
    first, _, _ = train(config, images, num_steps=1)
    evaluator = joint_evaluation.Evaluator(config, images, sharding.make_mesh(1))
    base = np.array([2, 1], np.int32)
    continuous, discrete = evaluator.traverse(first.params, base)
    assert [len(row) for row in continuous] == [10, 10]
    assert [len(row) for row in discrete] == [3, 2]
    # All others rest: both discrete rows meet at the base.
    np.testing.assert_array_equal(discrete[0][2], discrete[1][1])
    h = np.zeros((1, 2))
    h[0, 1] = 1.6448536  # the 95 % quantile
    np.testing.assert_array_equal(
        evaluator.decode(first.params, h, base[None])[0], continuous[1][-1]
    )


@pytest.mark.thorough
def test_an_interrupted_run_of_seeds_ends_like_a_whole_one(tmp_path, monkeypatch, images) -> None:
    settings = {**TINY, "discrete": "3,2", "num_seeds": 2}
    whole = joint_vae.run(Config(**settings, workdir=str(tmp_path / "whole")))
    trained_runs.check(tmp_path / "whole", whole, images.test)
    check_export_and_encode(tmp_path / "whole")
    cut = Config(**settings, workdir=str(tmp_path / "cut"))
    evaluate, calls = joint_evaluation.Evaluator.evaluate, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:  # a validation takes two, one for the codes' classes
            raise KeyboardInterrupt
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(joint_evaluation.Evaluator, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            joint_vae.run(cut)
    assert not (tmp_path / "cut" / "summary.json").exists()
    assert joint_vae.run(cut)["test"] == whole["test"]

    names = {path.name for path in (tmp_path / "cut").iterdir()}
    pictures = ("reconstructions", "samples", "traversals", "confusion", "kl_per_dimension")
    assert names >= {f"{picture}.png" for picture in (*pictures, "learning_curve")}
    assert json.loads((tmp_path / "whole" / "summary.json").read_text()) == whole
    test = whole["test"]
    assert len(whole["train"]["loss_nats"]) == 2
    assert len(test["accuracy"]) == len(test["accuracy_of_each_variable"]) == 2
    np.testing.assert_allclose(test["accuracy_mean_over_seeds"], np.mean(test["accuracy"]))
    assert np.shape(test["kl_continuous_nats"]) == np.shape(test["kl_discrete_nats"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_size=30"], "--image_size=30 must be a multiple of 8"),
        (["--discrete=10,x"], "--discrete=10,x must list numbers of classes"),
        (["--discrete=10,1"], "--discrete=10,1 must give every variable at least 2 classes"),
        (["--discrete=", "--continuous=0"], "--continuous=0 and --discrete= leave no latent"),
        (["--continuous=-1"], "--continuous=-1 must be at least 0"),
        (["--objective=elbo", "--gamma=3"], "--gamma=3.0 goes with --objective=capacity"),
        (["--kl_weight=2"], "--kl_weight=2.0 goes with --objective=beta"),
        (["--objective=gamma"], "capacity, elbo, beta"),
        (["--temperature=0"], "greater than 0"),
        (["--decoder_features=-1"], "--decoder_features=-1 must be at least 0"),
        (["--validation=false", "--data_on=files"], "use --data_on=host"),
        (["--validation=false", "--eval_interval=9"], "--eval_interval=9 goes with --validation"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, arguments, message) -> None:
    error = command_line.error_of(monkeypatch, capsys, joint_vae, Config, PRESETS, arguments)
    assert message in error
