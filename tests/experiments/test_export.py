"""`export`: a prior that was learned over the codes of a model goes where the model goes."""

import contextlib
import threading
import types

import finished_runs
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dvae
from dvae import data, trained
from dvae.models import code_prior, vq_conv
from dvae.train import lock, loop, status
from dvae.train.state import TrainState
from experiments import export
from experiments.common import models
from experiments.common.config import RunConfig

SIZES = vq_conv.VQConvConfig(
    codebook_size=4, num_latents=2, code_dim=2, features=2, num_residual_blocks=0
)
FUNCTIONS = trained.code_prior.Functions(
    trained.cifar_vq.Functions(SIZES, (8, 4, 3)),
    code_prior.CodePriorConfig((2, 1), 2, 4, features=2, num_layers=1),
)
OF_PRIOR = trained.Card("noise", step=7, seed=3, metrics={"rate_nats": 2.5}, license="MIT")


@pytest.fixture(name="run")
def run_with_a_prior(tmp_path):
    """A model of random numbers in the folder of its run, where a prior was learned for it."""
    rng = np.random.default_rng(0)
    draw = lambda like: jnp.asarray(rng.normal(size=like.shape), like.dtype)
    params = jax.tree.map(draw, FUNCTIONS.abstract_params())
    of_model = {name: x for name, x in params.items() if name != "prior"}
    made = models.Trained(FUNCTIONS.model, of_model, trained.Card("noise", license="CC0-1.0"))
    models.save([made], tmp_path / "model")
    trained.save_prior(tmp_path / "model", FUNCTIONS, params, OF_PRIOR)
    return made, tmp_path


def test_models_have_the_seeds_steps_and_numbers_of_their_own():
    config = RunConfig(seed=3, num_seeds=2)
    params = {"w": np.array([[1.0], [2.0]])}
    state = TrainState(np.array([7, 9]), params, (), ())
    images = data.Dataset("noise", *[np.zeros((1, 8, 4, 3), np.uint8)] * 3, "none")
    test = {"rate_nats": [1.5, 2.5], "num_images": 4}
    made = models.of_seeds(config, FUNCTIONS.model, lambda p, _: p, state, images, test)
    assert [(m.card.seed, m.card.step, m.params["w"].item()) for m in made] == [
        (3, 7, 1.0),
        (4, 9, 2.0),
    ]
    assert [m.card.metrics["rate_nats"] for m in made] == [1.5, 2.5]


def test_models_that_would_hide_each_other_are_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "seeds" / "seed_3").mkdir(parents=True)
    (tmp_path / "one").mkdir()
    for path in ("seeds/seed_3/model.json", "one/model.json"):
        (tmp_path / path).write_text("{}")
    assert models.hidden(2, tmp_path / "seeds") is models.hidden(1, tmp_path / "one") is None
    assert "holds model.json: models of seeds would hide it" in models.hidden(2, tmp_path / "one")
    of_run = RunConfig(num_seeds=1)
    monkeypatch.setattr(export, "read", lambda *_: of_run)
    place = export.Config(out=str(tmp_path / "seeds"))
    monkeypatch.setattr(export.flags, "parse", lambda *_: place)
    with pytest.raises(SystemExit):
        export.main(["export", str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'seeds'} holds seed_3: they would hide a single model; move" in line
    assert line.endswith("or choose another --out")


@pytest.mark.parametrize("place", ["model", "shared"])
@pytest.mark.parametrize("license", ["CC0-1.0", export.UNSPECIFIED])
def test_a_learned_prior_goes_with_its_model(run, place, license):
    made, folder = run
    before = dvae.load(folder)
    models.save([made], folder / place)
    assert export.hand_on_prior(made, folder / "model", folder / place, license)
    after = dvae.load(folder / place)
    assert after.functions == before.functions == FUNCTIONS
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    own = before.info["prior"]
    expected = {**own, "license": "MIT" if license == export.UNSPECIFIED else license}
    assert after.info["prior"] == expected
    assert after.info["license"] == "CC0-1.0"


@pytest.mark.parametrize("place", ["model", "shared"])
def test_a_prior_of_other_codes_is_left_out(run, place, capsys):
    made, folder = run
    later = {**made.params, "codebook": made.params["codebook"] + 1}
    made = made._replace(params=later)
    models.save([made], folder / place)
    assert not export.hand_on_prior(made, folder / "model", folder / place, "MIT")
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert f"{folder / place} has no learned prior" in said
    assert "for codes of another model" in said
    assert "python -m experiments.code_prior" in said
    assert dvae.load(folder / place, learned_prior=False).functions == FUNCTIONS.model
    assert (folder / place / "prior").exists() == (place == "model")


def test_a_prior_that_is_not_there_or_not_finished_is_none(run, capsys):
    made, folder = run
    (folder / "model" / "prior" / "prior.json").unlink()
    for source in (folder / "model", folder / "elsewhere"):
        assert not export.hand_on_prior(made, source, folder / "shared", "MIT")
    assert not capsys.readouterr().err


def test_a_damaged_summary_is_named_before_anything_is_restored(tmp_path):
    run = finished_runs.make(tmp_path / "run", "binary_vae")
    (run / "checkpoints" / "1").mkdir(parents=True)
    assert export.read(export.Config(), run).workdir == str(run)
    (run / "summary.json").write_text("")
    with pytest.raises(ValueError, match=r"summary.json is not valid JSON .*command, given again"):
        export.read(export.Config(), run)


def test_the_checkpoint_that_another_writes_is_left_alone(tmp_path, monkeypatch):
    run = finished_runs.make(tmp_path / "run", "binary_vae")
    (run / "checkpoints" / "1").mkdir(parents=True)
    in_progress = run / "checkpoints" / "2.orbax-checkpoint-tmp-7" / "state"
    config = export.read(export.Config(), run)
    program = types.SimpleNamespace(make_task=lambda *_: None)
    monkeypatch.setattr(export.programs, "room", lambda *_: program)
    held, over = threading.Event(), threading.Event()

    def train():
        with lock.hold(run):
            in_progress.mkdir(parents=True)
            held.set()
            over.wait(60)

    other = threading.Thread(target=train)
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(lock.LockedError, match="is in use by"):
            export.make(config, None, None)
        assert in_progress.exists()
    finally:
        over.set()
        other.join()


def test_the_estimation_of_log_z_is_said_once(tmp_path, monkeypatch):
    """The evaluation says it, around what takes the time."""
    phases = []

    @contextlib.contextmanager
    def phase(text, **_):
        phases.append(text)
        yield

    def log_z(params):
        with status.phase("estimating log Z"):
            return params

    run = finished_runs.make(tmp_path / "run", "binary_vae")
    (run / "checkpoints" / "1").mkdir(parents=True)
    config = export.read(export.Config(), run)
    state = TrainState(np.array(7), 1.5, (), ())
    program = types.SimpleNamespace(
        make_task=lambda *_: None,
        evaluation=types.SimpleNamespace(Evaluator=lambda *_: types.SimpleNamespace(log_z=log_z)),
        report=types.SimpleNamespace(models=lambda *arguments: arguments[-1]),
    )
    monkeypatch.setattr(export.programs, "room", lambda *_: program)
    monkeypatch.setattr(export, "_until_now", lambda *_: None)
    monkeypatch.setattr(export.loop, "fit", lambda *_: loop.Result(state, 0.0, state))
    monkeypatch.setattr(status, "phase", phase)
    assert export.make(config, None, None) == 1.5
    assert phases == ["estimating log Z"]
