"""`code_prior`: a run beside the model of another one, and what `dvae.load` makes of both."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from code_prior_runs import config_of, make_run

import dvae
from dvae.train import lock
from experiments.code_prior import __main__ as code_prior
from experiments.code_prior import evaluation, task
from experiments.code_prior.config import Config


def test_validation_images_that_the_model_knows_are_told(tmp_path, capsys) -> None:
    run = make_run(tmp_path / "run")
    config_of(run, tmp_path / "prior")
    assert "validation images" not in capsys.readouterr().err
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "validation": False}))
    config_of(run, tmp_path / "prior")
    assert "trained on its validation images, too" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", [pytest.param("gs_soft", marks=pytest.mark.slow), "vq"])
def test_a_run_gives_its_model_a_prior(tmp_path, one_device, capsys, estimator) -> None:
    run = make_run(tmp_path / "run", estimator)
    network = "transformer" if estimator == "vq" else "gated"
    config = config_of(run, tmp_path / "prior", network=network, schedule="constant")
    resumed = dataclasses.replace(config, workdir=str(tmp_path / "resumed"))
    if estimator == "gs_soft":
        code_prior.run(dataclasses.replace(resumed, num_steps=2))
    summary = code_prior.run(config)
    test = summary["test"]
    # What the summary says is what the models say that are left.
    images = task.prepare(config).test
    images = images[np.linspace(0, len(images) - 1, 16).astype(int)]
    key = jax.random.fold_in(jax.random.key(0), 2)
    for learned, name in ((True, "bits_per_dim"), (False, "factorial_bits_per_dim")):
        for folder in (run, tmp_path / "prior"):
            bound = dvae.load(folder, learned_prior=learned).elbo(jax.random.clone(key), images)
            np.testing.assert_allclose(-bound.mean() / 64 / np.log(2), test[name], atol=1e-4)
    assert test["rate_nats"] != test["factorial_rate_nats"]
    assert dvae.load(run).sample(key, 2).shape == (2, 8, 8, 1)
    expected = {"summary.json", "samples.png", "samples_factorial.png", "learning_curve.png"}
    assert expected <= {path.name for path in (tmp_path / "prior").iterdir()}
    if estimator == "gs_soft":  # two steps and two more are four
        code_prior.run(resumed)
        file = "model/prior/prior.safetensors"
        assert (tmp_path / "prior" / file).read_bytes() == (
            tmp_path / "resumed" / file
        ).read_bytes()
    code_prior.run(config)
    assert "this run is finished" in capsys.readouterr().out


def test_a_run_that_is_being_trained_gets_no_prior(tmp_path) -> None:
    run = make_run(tmp_path / "run")
    with (
        lock.hold(run),
        pytest.raises(ValueError, match=r"run is in use by .* wait until it ends, or stop it$"),
    ):
        config_of(run, tmp_path / "prior")
    assert config_of(run, tmp_path / "prior").model_sha256


def test_a_folder_with_a_prior_of_another_model_is_refused(tmp_path, capsys) -> None:
    config = config_of(make_run(tmp_path / "run"), tmp_path / "prior")
    leave_config(tmp_path / "prior", "0" * 64)
    with pytest.raises(SystemExit):
        code_prior.run(config)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"prior holds a prior of another model (00000000, that in {config.run_dir} is" in line
    assert line.endswith(
        "which was trained on since or is of another run; choose another --workdir"
    )


def leave_config(workdir, model_sha256):
    """A workdir with nothing but what it says of the model."""
    workdir.mkdir(parents=True)
    record = {"program": "code_prior", "model_sha256": model_sha256}
    (workdir / "config.json").write_text(json.dumps(record))


def test_each_model_has_a_default_folder_and_a_former_one_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for seed, cell in enumerate("ab"):
        (tmp_path / cell).mkdir()
        config = config_of(make_run(tmp_path / cell / "seed0", seed=seed), "", features=64)
        names.append(config.default_workdir())
        assert f"-seed0-{config.model_sha256[:8]}-gated-" in names[-1]
    assert names[0] != names[1]
    former = names[1].replace(f"-{config.model_sha256[:8]}", "")
    leave_config(tmp_path / former, config.model_sha256)
    assert config.default_workdir() == former
    others = dataclasses.replace(config, model_sha256="0" * 64)
    assert others.default_workdir() == names[1].replace(config.model_sha256[:8], "00000000")


def test_training_starts_at_the_factorial_prior(tmp_path, one_device) -> None:
    """Of a single code an image, rates are equal; in general their means over draws are."""
    config = config_of(make_run(tmp_path / "run", "vq"), tmp_path / "prior", eval_interval=0)
    images = task.prepare(config)
    mesh = evaluation.sharding.make_mesh(1)
    job = code_prior.make_task(config, images, mesh)
    state = jax.jit(job.init)(job.key_init, job.data)
    found = evaluation.Evaluator(config, mesh).evaluate(state.params, images.test[:12])
    assert found.factorial_rate.std() > 0
    np.testing.assert_allclose(found.rate, found.factorial_rate, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(dropout=1.0), "--dropout=1 must be below 1"),
        (dict(network="transformer", features=6), "--features=6 must be a multiple of --num_heads"),
        (dict(model_seed="one"), "--model_seed=one must be a number"),
    ],
)
def test_settings_that_are_refused(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_places_that_are_refused(tmp_path, monkeypatch, capsys) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for name, record in (("bits", {"structure": "linear"}), ("prior", {"program": "code_prior"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(record))
    for words, message in (
        ([], "name the folder of one run: python -m experiments.code_prior RUN_DIR; got none"),
        ([str(tmp_path / "nowhere")], "nowhere does not exist; name a run of cifar_vq\n"),
        ([str(tmp_path / "empty")], "empty holds no run; name a run of cifar_vq\n"),
        ([str(tmp_path / "bits")], "bits is a binary_vae run; name a run of cifar_vq\n"),
        ([str(tmp_path / "prior")], "prior is a code_prior run; name a run of cifar_vq\n"),
    ):
        monkeypatch.setattr(code_prior.flags, "parse", lambda _: Config())
        with pytest.raises(SystemExit):
            code_prior.main(["program", *words])
        assert message in capsys.readouterr().err
    for seed, message in (("3", "holds one model, and not that of seed 3"),):
        with pytest.raises(ValueError, match=message):
            config_of(run, tmp_path / "prior", model_seed=seed)
    (run / "model" / "model.json").unlink()
    with pytest.raises(ValueError, match="holds no trained model"):
        config_of(run, tmp_path / "prior")
