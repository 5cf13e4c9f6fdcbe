"""`code_prior`: a run beside the model of another one, and what `dvae.load` makes of both."""

import dataclasses
import json
import shutil
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import dvae
from dvae import trained
from dvae.train import lock
from experiments.cifar_vq import config as cifar_vq
from experiments.cifar_vq import model as cifar_vq_model
from experiments.code_prior import __main__ as code_prior
from experiments.code_prior import evaluation, model, report, task
from experiments.code_prior.config import Config

RUN = dict(
    dataset="digits",
    image_size=8,
    codebook_size=4,
    num_latents=2,
    code_dim=2,
    features=2,
    num_residual_blocks=0,
)
TINY = dict(
    features=4,
    num_layers=1,
    batch_size=8,
    num_steps=4,
    log_interval=2,
    eval_interval=2,
    checkpoint_interval=2,
    num_eval_images=16,
    num_test_images=16,
    eval_batch_size=8,
)


def make_run(folder, estimator="gs_soft", seed=0):
    """A run's folder with a model of random parameters, and no training."""
    config = cifar_vq.Config(**RUN, estimator=estimator)
    folder.mkdir()
    record = {"program": "cifar_vq", **dataclasses.asdict(config)}
    (folder / "config.json").write_text(json.dumps(record))
    functions = cifar_vq_model.functions(config, (8, 8, 1))
    rng = np.random.default_rng(seed)
    draw = lambda x: (0.5 * rng.normal(size=x.shape)).astype(x.dtype)
    params = jax.tree.map(draw, functions.abstract_params())
    params["network"]["encoder"] = jax.tree.map(lambda x: 4 * x, params["network"]["encoder"])
    card = trained.Card("digits", seed=seed, step=9)
    trained.save(folder / "model", functions, params, card)
    return folder


def replace_model(run):
    """Puts another model into a run's folder, as further training does."""
    other = dvae.load(make_run(run.with_name("other"), seed=1))
    trained.save(run / "model", other.functions, other.params, trained.Card("digits", seed=1))


def config_of(run, workdir, **settings):
    return code_prior.of_run(Config(**{**TINY, **settings}, workdir=str(workdir)), run)


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


@pytest.mark.slow
def test_the_best_prior_stays_with_the_model(tmp_path, one_device, capsys) -> None:
    run = make_run(tmp_path / "run")
    config = config_of(run, tmp_path / "two", num_seeds=2, schedule="constant", dropout=0.0)
    summary = code_prior.run(config)
    rates = summary["validation"]["rate_nats"]
    best = int(np.argmin(rates))
    there = dvae.load(run).info["prior"]
    assert (there["seed"], there["metrics"]["validation_rate_nats"]) == (best, rates[best])
    own = dvae.load(tmp_path / "two", seed=1)
    np.testing.assert_array_equal(own.params["codebook"], dvae.load(run).params["codebook"])
    capsys.readouterr()
    worse = config_of(run, tmp_path / "worse", num_steps=2, learning_rate=1e-9)
    code_prior.run(worse)
    assert (
        f"keeps its prior, of {rates[best]:.4f} nats on 16 validation images"
        in capsys.readouterr().err
    )
    assert dvae.load(run).info["prior"] == there
    # Another model: its codes are others, the prior is refused, and so is the workdir.
    replace_model(run)
    with pytest.raises(trained.ModelError, match="prior for codes of another model"):
        dvae.load(run)
    with pytest.raises(SystemExit):
        code_prior.run(
            config_of(run, tmp_path / "two", num_seeds=2, schedule="constant", dropout=0.0)
        )
    assert "two holds a prior of another model" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is another than that of this prior"):
        model.load(config)


@pytest.fixture(name="learn")
def make_learn(tmp_path, capsys):
    """Leaves a prior of a rate in a run of its own, and hands it over to that of the model."""
    run = make_run(tmp_path / "run", "vq")
    of_model = model.load(config_of(run, tmp_path / "prior"))

    def learn(rate, num_images, name="prior"):
        config = config_of(run, tmp_path / name)
        functions = model.functions(config, of_model)
        prior = jax.tree.map(lambda x: np.full(x.shape, rate, x.dtype), functions.abstract_prior())
        metrics = report.of_validation({"rate_nats": rate, "num_images": num_images})
        card = trained.Card("digits", seed=0, metrics=metrics)
        trained.save(tmp_path / name / "model", functions, model.arrays(of_model, prior), card)
        summary = {"validation": {"rate_nats": rate, "num_images": num_images}, "seeds": [0]}
        report.hand_over(config, tmp_path / name, summary)
        return rate_there(run), capsys.readouterr().err

    return learn


def rate_there(run):
    """The rate of the prior that a model has, by its record and by what `learn` made its arrays."""
    loaded = dvae.load(run)
    rate = loaded.info["prior"]["metrics"]["validation_rate_nats"]
    assert all(np.all(x == rate) for x in jax.tree.leaves(loaded.params["prior"]))
    return rate


def test_priors_are_compared_on_the_same_validation_images(learn) -> None:
    assert learn(20.0, 16)[0] == 20.0
    rate, said = learn(21.0, 16)
    assert rate == 20.0
    assert "keeps its prior, of 20.0000 nats on 16 validation images" in said
    assert learn(19.0, 16)[0] == 19.0
    rate, said = learn(30.0, 32)
    assert rate == 30.0
    assert "judged on 16 validation images, and this one on 32: it is replaced" in said


def test_a_prior_that_was_judged_on_fewer_images_replaces_none(learn) -> None:
    assert learn(20.0, 50)[0] == 20.0
    rate, said = learn(1.0, 10)
    assert rate == 20.0
    assert "keeps its prior, which was judged on 50 validation images, and this one on 10" in said
    assert said.endswith("learn it with --num_test_images=50\n")


def test_an_earlier_prior_is_put_back_by_hand(tmp_path, learn) -> None:
    learn(20.0, 16, "earlier")
    assert learn(30.0, 32, "later")[0] == 30.0
    place = lambda name: tmp_path / name / "model" / "prior"
    shutil.copytree(place("earlier"), place("run"), dirs_exist_ok=True)
    assert rate_there(tmp_path / "run") == 20.0
    assert learn(25.0, 16, "next")[0] == 20.0, "it is compared as before"


def test_of_priors_that_end_together_the_better_one_stays(tmp_path, learn, monkeypatch) -> None:
    """While another process hands its prior over, this one waits, and sees it then."""
    learn(20.0, 16, "other")
    place = lambda name: tmp_path / name / "model" / "prior"
    shutil.rmtree(place("run"))
    held = threading.Event()
    monkeypatch.setattr(report, "_POLL_SECONDS", 0.01)

    def other():
        with lock.hold(tmp_path / "run" / "model"):
            held.set()
            time.sleep(0.5)  # in which an unlocked one would find no prior
            shutil.copytree(place("other"), place("run"), dirs_exist_ok=True)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    held.wait()
    rate, said = learn(21.0, 16)
    thread.join()
    assert (rate, rate_there(tmp_path / "run")) == (20.0, 20.0)
    assert "keeps its prior, of 20.0000 nats" in said
    assert not (tmp_path / "run" / "model" / lock.LOCK_FILE).exists()


def test_a_model_whose_folder_stays_in_use_gets_no_prior(tmp_path, learn, monkeypatch) -> None:
    learn(20.0, 16)
    monkeypatch.setattr(report, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(report, "_POLL_SECONDS", 0.01)
    held, over = threading.Event(), threading.Event()

    def other():
        with lock.hold(tmp_path / "run" / "model"):
            held.set()
            over.wait()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    held.wait()
    with pytest.raises(
        lock.LockedError, match=r"model is in use by .* the same command hands it over once"
    ):
        learn(19.0, 16)
    over.set()
    thread.join()
    assert rate_there(tmp_path / "run") == 20.0
    assert learn(19.0, 16)[0] == 19.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace_model, "is another than that of this prior"),
        (lambda run: shutil.rmtree(run / "model"), "holds no trained model"),
    ],
    ids=["another", "gone"],
)
def test_a_model_that_changes_while_its_prior_is_learned_ends_in_one_line(
    tmp_path, capsys, change, message
) -> None:
    run = make_run(tmp_path / "run", "vq")
    config = config_of(run, tmp_path / "prior")
    change(run)
    capsys.readouterr()
    for end in (
        lambda: report.report(config, SimpleNamespace(state=None), None, tmp_path, None),
        lambda: report.hand_over(config, tmp_path / "prior", {}),
    ):
        with pytest.raises(SystemExit) as stopped:
            end()
        assert stopped.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert message in lines[-1]
        assert lines[-1].startswith("error: ")


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
