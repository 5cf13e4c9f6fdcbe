"""Which prior stays with a model, when several were learned for it or it changed."""

import shutil
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from code_prior_runs import config_of, make_run, replace_model

import dvae
from dvae import trained
from dvae.train import lock
from experiments.code_prior import __main__ as code_prior
from experiments.code_prior import model, report


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
