"""Runs of `joint_vae` side by side."""

import json

from experiments import joint_table


def write(
    directory, *, seeds, accuracy, objective="capacity", dataset="mnist", loss=None, **config
):
    """A finished run's directory; lists where there are several seeds."""
    each = lambda value: [value] * len(seeds) if len(seeds) > 1 else value
    test = {
        "distortion_nats": each(150.25),
        "rmse": each(0.125),
        "elbo_nats": each(-170.5),
        "kl_continuous_nats": each([2.0, 3.0]),
        "kl_discrete_nats": each([2.25]),
    }
    if accuracy is not None:
        test["accuracy"] = accuracy
    summary = {
        "dataset": dataset,
        "test": test,
        "seeds": seeds,
        **({} if loss is None else {"train": {"loss_nats": loss}}),
        "num_steps": 1_000,
        "epochs": 1.28,
        "wall_seconds": 120.0,
        "hardware": "1 core",
        "config": {
            "objective": objective,
            "discrete": "10",
            "workdir": "/here",
            "data_dir": "/d",
            **config,
        },
    }
    directory.mkdir()
    (directory / "summary.json").write_text(json.dumps(summary))
    return directory


def test_a_row_a_seed_and_how_many_fall_short(tmp_path) -> None:
    runs = [
        write(tmp_path / "a", seeds=[0, 1], accuracy=[0.92, 0.8]),
        write(tmp_path / "b", seeds=[2], accuracy=0.95),
        write(tmp_path / "c", seeds=[0], accuracy=0.3, objective="elbo"),
        write(tmp_path / "d", seeds=[0], accuracy=None, dataset="omniglot"),
    ]
    table = joint_table.compare(runs, tmp_path / "out")
    rows = [line for line in table.splitlines() if "mnist" in line or "omniglot" in line]
    assert len(rows) == 5
    assert [row.split("|")[4].strip() for row in rows] == ["0", "1", "2", "0", "0"]
    assert "0.800" in rows[1]
    assert "5.00" in rows[1]  # the KL of both continuous variables
    text = (tmp_path / "out" / "joint_vae.md").read_text()
    assert (
        "capacity, 1,000 steps: accuracy 0.890 (± 0.079) on average over 3 seed(s), 1 of them"
        in text
    )
    assert "elbo, 1,000 steps: accuracy 0.300 on average over 1 seed(s), 1 of them" in text
    records = json.loads((tmp_path / "out" / "joint_vae.json").read_text())
    assert len(records) == 4
    assert records[0]["config"]["workdir"] == ""


def test_accuracies_of_other_settings_are_not_averaged(tmp_path) -> None:
    runs = [
        write(tmp_path / "a", seeds=[0], accuracy=0.92),
        write(tmp_path / "b", seeds=[1], accuracy=0.8, gamma=100.0),
    ]
    table = joint_table.compare(runs, tmp_path / "out")
    assert [line.split("|")[-2].strip() for line in table.splitlines()[2:]] == [
        "gamma=30.0",
        "gamma=100.0",
    ]
    text = (tmp_path / "out" / "joint_vae.md").read_text()
    assert "capacity, 1,000 steps, gamma=30.0: accuracy 0.920 on average over 1 seed(s)" in text
    assert "capacity, 1,000 steps, gamma=100.0: accuracy 0.800 on average over 1 seed(s)" in text


def test_the_training_loss_chooses_a_seed(tmp_path) -> None:
    write(tmp_path / "a", seeds=[0, 1], accuracy=[0.92, 0.8], loss=[151.0, 150.0])
    write(tmp_path / "b", seeds=[2], accuracy=0.7, loss=149.0)
    write(tmp_path / "c", seeds=[3], accuracy=0.7)
    joint_table.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    text = (tmp_path / "out" / "joint_vae.md").read_text()
    assert "The seed with the lowest training loss, 2, has 0.700." in text
    joint_table.compare([tmp_path / "a", tmp_path / "c"], tmp_path / "older")
    assert "training loss" not in (tmp_path / "older" / "joint_vae.md").read_text()
