"""The folder of a run: whose it is, longer runs, finished runs, other files."""

import dataclasses
import json
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from programs import CONFIGS

from dvae.train import lock
from dvae.train.metrics import read_metrics
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import config as binary_config
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import config as vq_config
from experiments.common import records, workdirs
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp import config as dvaepp_config
from experiments.joint_vae import __main__ as joint_vae
from experiments.joint_vae import config as joint_config

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(name="train")
def make_train(tmp_path):
    def train(workdir=tmp_path / "run", **settings):
        return tiny.run(tiny.Config(workdir=str(workdir), **settings))

    return train


@pytest.fixture(name="refused")
def make_refused(train, capsys):
    """Starts a run that must be refused in one line, which is returned."""

    def refused(*arguments, **settings):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            train(*arguments, **settings)
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refused


def never(monkeypatch, name):
    monkeypatch.setattr(tiny, name, lambda *_: pytest.fail(f"{name} was called"))


def test_a_finished_run_says_where_its_results_are(tmp_path, train, capsys, monkeypatch) -> None:
    first = train()
    never(monkeypatch, "prepare")
    capsys.readouterr()
    assert train() == first
    said = capsys.readouterr().out
    assert said == (
        f"this run is finished, its results are in {tmp_path / 'run'}: summary.json, line.png; "
        f"delete {tmp_path / 'run' / 'summary.json'} to evaluate and draw it again, or train it "
        f"longer by --workdir={tmp_path / 'run'} and a larger --num_steps\n"
    )


def test_a_finished_run_of_an_older_version_is_finished(
    tmp_path, train, capsys, monkeypatch
) -> None:
    first = train()
    path = tmp_path / "run" / "summary.json"
    former = {**first, "test": {"nll": 1.5, "kl_global": 2.5}}
    path.write_text(json.dumps(former))
    never(monkeypatch, "prepare")
    assert train()["test"] == {"nll_nats": 1.5, "kl_global_nats": 2.5}
    assert capsys.readouterr().out.splitlines()[-1].startswith("this run is finished")
    assert json.loads(path.read_text()) == former, "nothing was written"


@pytest.mark.thorough
@pytest.mark.parametrize("lost", ["summary.json", "line.png"])
def test_what_is_lost_of_a_finished_run_is_made_again(tmp_path, train, lost) -> None:
    first = train()
    (tmp_path / "run" / lost).unlink()
    again = train()
    assert again["test"] == first["test"]
    assert (tmp_path / "run" / lost).exists()


def test_a_run_whose_drawing_was_cut_off_is_not_finished(tmp_path, train) -> None:
    first = train()
    path = tmp_path / "run" / "summary.json"
    summary = json.loads(path.read_text())
    del summary[records.FILES]  # as after a kill, and in runs from before it was written
    path.write_text(json.dumps(summary))
    assert train()["test"] == first["test"]
    assert json.loads(path.read_text())[records.FILES] == ["line.png"]


@pytest.mark.thorough
def test_a_longer_run_ends_like_one_from_the_start(tmp_path, train) -> None:
    train(num_steps=14)  # the last step is the best one, but no multiple of eval_interval
    longer = train(num_steps=20)
    whole = train(tmp_path / "whole", num_steps=20)
    assert longer["test"] == whole["test"]
    assert whole["test"]["best_step"] == 4
    assert json.loads((tmp_path / "run" / "config.json").read_text())["num_steps"] == 20
    last = [read_metrics(tmp_path / name)[-1] for name in ("run", "whole")]
    assert last[0] == last[1]


def test_a_longer_run_needs_settings_that_do_not_depend_on_the_length(train, refused) -> None:
    train(tied="yes")
    line = refused(tied="yes", num_steps=16)
    assert "holds a run of 12 steps, which cannot go on to --num_steps=16" in line
    assert "the rate falls over num_steps (--tied=yes); choose another --workdir" in line


def test_a_shorter_run_is_refused(train, refused) -> None:
    train()
    assert "holds a run of 12 steps, and --num_steps=8 is fewer" in refused(num_steps=8)


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (vq_config.Config(), None),
        (joint_config.Config(), None),
        (dvaepp_config.Config(), "--schedule=linear"),
        (dvaepp_config.Config(schedule="constant"), None),
        (dvaepp_config.Config(schedule="constant", beta_final=14.0), "--beta_steps=0"),
        (dvaepp_config.Config(schedule="constant", beta_final=14.0, beta_steps=9), None),
        (
            dvaepp_config.Config(schedule="constant", beta_final=14.0, global_latents="normal"),
            None,
        ),
        (binary_config.Config(), "--schedule=linear"),
        (binary_config.Config(schedule="staircase"), "--schedule=staircase"),
        (binary_config.Config(schedule="constant"), None),
        (binary_config.Config(schedule="constant", beta_final=14.0), "--beta_steps=0"),
        (binary_config.Config(schedule="constant", beta_final=8.0), None),
        (binary_config.Config(schedule="constant", beta_final=14.0, beta_steps=9), None),
        (binary_config.Config(schedule="constant", beta_final=14.0, estimator="nvil"), None),
        (
            binary_config.Config(schedule="constant", beta_final=14.0, prior="rbm"),
            "--beta_steps=0",
        ),
    ],
)
def test_what_ties_a_program_to_its_length(config, tied) -> None:
    found = config.tied_to_length()
    assert found is None if tied is None else f"({tied})" in found


@pytest.mark.slow
@pytest.mark.parametrize("program", [cifar_vq, joint_vae, binary_vae, dvaepp])
def test_every_program_can_be_prolonged(tmp_path, program) -> None:
    configs = {cifar_vq: vq_config, joint_vae: joint_config, dvaepp: dvaepp_config}
    module = configs.get(program, binary_config)
    settings = dict(program.PRESETS["smoke"], num_test_images=16)
    if program in (binary_vae, dvaepp):
        settings["schedule"] = "constant"

    def train(name, num_steps):
        values = dict(settings, num_steps=num_steps, workdir=str(tmp_path / name))
        return program.run(module.Config(**values))

    train("longer", 6)
    longer, whole = train("longer", 10), train("whole", 10)
    assert longer["test"] == whole["test"]
    assert longer.get("evaluated_step") == whole.get("evaluated_step")
    states = []
    for name in ("longer", "whole"):
        reader = ocp.Checkpointer(ocp.StandardCheckpointHandler())
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        arguments = ocp.args.StandardRestore(fallback_sharding=here)
        states.append(reader.restore(tmp_path / name / "checkpoints/10/state", args=arguments))
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_of_another_program_is_named(tmp_path, train, refused) -> None:
    train()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["program"] == "tiny"
    config["program"] = "binary_vae"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    line = refused()
    assert line.endswith("run holds a run of binary_vae, this is tiny; choose another --workdir")


@pytest.mark.parametrize("config_class", CONFIGS.values(), ids=lambda c: c.program)
def test_older_runs_are_known_by_their_fields(tmp_path, config_class) -> None:
    config = config_class(workdir=str(tmp_path))
    fields = dataclasses.asdict(config)
    del fields["nonempty_workdir"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert workdirs.examine(config, tmp_path) is None
    with workdirs.claim(config, tmp_path):
        pass
    for other in CONFIGS.values():
        if other is not config_class:
            with pytest.raises(ValueError, match=f"holds a run of {config_class.program}, this is"):
                workdirs.examine(other(workdir=str(tmp_path)), tmp_path)


def test_a_configuration_of_something_else(tmp_path, train, refused) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"theme": "dark"}')
    assert "holds the configuration of something else, this is tiny" in refused()


def test_other_files_are_refused_unless_asked_for(tmp_path, train, refused) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png"):
        (workdir / name).write_text("")
    line = refused()
    assert "holds no run, but other files (a.png, b.png, c.png, ...)" in line
    assert "add --nonempty_workdir=use" in line
    assert len(list(workdir.iterdir())) == 4, "nothing was written"
    summary = train(nonempty_workdir="use")
    assert summary["files"] == ["line.png"], "other pictures are not results of the run"
    train()  # it is a run now


def test_checkpoints_without_a_configuration_are_nobodys(tmp_path, train, refused) -> None:
    """A run under other settings would go on from them."""
    train()
    (tmp_path / "run" / "config.json").unlink()
    line = refused(nonempty_workdir="use", seed=5)
    assert "holds checkpoints of a run whose config.json is missing" in line
    assert f"or delete {tmp_path / 'run' / 'checkpoints'}" in line


def test_a_run_goes_on_with_the_images_that_it_began_with(
    tmp_path, train, refused, monkeypatch
) -> None:
    train()
    prepare, longer = tiny.prepare, {"num_steps": 2 * tiny.Config().num_steps}
    more = lambda images: {"test": np.concatenate([images.test, images.test])}
    inverted = lambda split: lambda images: {split: 1 - getattr(images, split)}
    for other in (more, inverted("train"), inverted("validation"), inverted("test")):
        changed = lambda *args, other=other: prepare(*args)._replace(**other(prepare(*args)))
        monkeypatch.setattr(tiny, "prepare", changed)
        line = refused(**longer)
        assert "holds a run of other images (train " in line
        assert "put back what was there" in line
    path = tmp_path / "run" / "images.json"
    then = json.loads(path.read_text())
    then.pop("sample")
    path.write_text(json.dumps(then))  # of an older version, which kept numbers alone
    train(**longer)
    assert "sample" in json.loads(path.read_text())


def test_hidden_files_and_what_a_killed_start_left_are_no_others(tmp_path, train) -> None:
    (tmp_path / "run").mkdir()
    for name in (".DS_Store", "config.tmp", "run.lock.0123"):
        (tmp_path / "run" / name).write_text("")
    train()


def test_a_second_start_is_refused_before_the_data_is_loaded(
    tmp_path, train, refused, monkeypatch
) -> None:
    held, over = threading.Event(), threading.Event()

    def other():
        with lock.hold(tmp_path / "run"):
            held.set()
            over.wait()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    never(monkeypatch, "prepare")
    line = refused()
    over.set()
    thread.join()
    assert "is in use by this process" in line
    assert "delete" not in line


def test_evaluation_and_drawing_are_under_the_lock(tmp_path, train, monkeypatch) -> None:
    found = []
    report = tiny.report

    def watching(*arguments):
        found.append((tmp_path / "run" / lock.LOCK_FILE).exists())
        reported = report(*arguments)

        def draw():
            found.append((tmp_path / "run" / lock.LOCK_FILE).exists())
            return reported.draw()

        return reported._replace(draw=draw)

    monkeypatch.setattr(tiny, "report", watching)
    train()
    assert found == [True, True]
    assert not (tmp_path / "run" / lock.LOCK_FILE).exists()
