"""`cifar_vq`: what its logs say of rates and of every codebook, and what its terminal shows."""

import json
import re

import jax
import numpy as np
import pytest

from dvae.train import metrics, sharding
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import evaluation
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS

TINY = {**PRESETS["smoke"], "features": 4, "code_dim": 4, "crop": 8, "num_test_images": 16}
SHOWN = ["bits_per_dim", "rate", "distortion"]
USAGE = {f"{kind}_{i}" for kind in ("perplexity", "dead_codes") for i in (1, 2)}
IN_BITS = {"rate_bits_per_dim", "distortion_bits_per_dim"}


def test_validation_names_every_latent_variable_and_both_units() -> None:
    counts = np.array([[[5, 5, 5, 5], [7, 7, 0, 0]]])
    found = evaluation.Evaluation(np.full((1, 3), 12.0), np.full((1, 3), 36.0), counts, 24).means()
    assert [found[f"perplexity_{i}"] for i in (1, 2)] == pytest.approx([4.0, 2.0])
    assert [found[f"dead_codes_{i}"] for i in (1, 2)] == [0, 2]
    assert (found["perplexity"], found["dead_codes"]) == (pytest.approx(3.0), 1.0)
    assert found["rate_bits_per_dim"] == pytest.approx(0.5 / np.log(2))
    assert found["distortion_bits_per_dim"] == pytest.approx(1.5 / np.log(2))
    assert found["bits_per_dim"] == pytest.approx(2 / np.log(2))


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_training_names_them_too(patches, num_seeds) -> None:
    task = cifar_vq.make_task(Config(**TINY, num_seeds=num_seeds), patches, sharding.make_mesh(1))
    state = jax.eval_shape(task.init, task.key_init, task.data)
    _, logged = jax.eval_shape(task.step, state, task.data, task.key_train)
    assert set(logged) >= {*SHOWN, *USAGE, *IN_BITS, "perplexity", "dead_codes"}
    assert len({logged[name].shape for name in (*SHOWN, *USAGE, *IN_BITS)}) == 1


@pytest.mark.thorough
@pytest.mark.usefixtures("one_device")
def test_logs_are_longer_and_lines_of_the_terminal_are_not(tmp_path, capsys) -> None:
    """A run whose first records are those of an earlier release goes on, and is drawn."""
    settings = {**TINY, "dataset": "digits"}
    cifar_vq.run(Config(**{**settings, "num_steps": 2}, workdir=str(tmp_path)))
    lines = capsys.readouterr().err.splitlines()
    words = lambda line: re.findall(r"(?<= )[a-z_0-9]+(?= -?[\d.e+-]+(?:  |$))", line)
    (validated,) = (line for line in lines if line.startswith("validation at step"))
    assert words(validated.split(":")[1]) == [*SHOWN, "perplexity", "dead_codes"]
    path = tmp_path / metrics.METRICS_FILE
    is_new = lambda name: name.split("/")[-1] in USAGE | IN_BITS
    first = metrics.read_metrics(tmp_path)
    for record in first:
        step = record["step"]
        assert step == 2
        for split in {name.split("/")[0] for name in record} - {"step"}:
            numbers = {name: record[f"{split}/{name}"] for name in USAGE | IN_BITS}
            for kind in ("perplexity", "dead_codes"):
                mean = (numbers[f"{kind}_1"] + numbers[f"{kind}_2"]) / 2
                assert record[f"{split}/{kind}"] == pytest.approx(mean)
            total = numbers["rate_bits_per_dim"] + numbers["distortion_bits_per_dim"]
            if split == "validation":
                assert record["validation/bits_per_dim"] == pytest.approx(total)
    former = [{k: v for k, v in record.items() if not is_new(k)} for record in first]
    assert former != first
    path.write_text("".join(json.dumps(record) + "\n" for record in former))
    cifar_vq.run(Config(**{**settings, "num_steps": 4}, workdir=str(tmp_path)))
    records = metrics.read_metrics(tmp_path)
    assert records[: len(former)] == former
    assert {name for record in records[len(former) :] for name in record if is_new(name)}
    assert (tmp_path / "rate_distortion.png").exists()
