"""How long a cell is expected to take, by recorded runs of its kind."""

import pytest

from experiments.reproduce import hours, manifest

CELL = "mnist_static_linear_nvil"


def test_hours_are_those_of_runs_of_the_same_kind() -> None:
    cells = {cell.name: cell for cell in manifest.TABLES["table1"].cells}
    table = manifest.TABLES["table1"]
    short, long = (hours.on_cpu(table, cells[CELL], budget) for budget in ("cpu", "paper"))
    assert long.value == pytest.approx(5 * short.value * 2_000_000 / 300_000), "of five seeds"
    assert 0.01 < short.value < 1
    assert not short.is_near
    gs_soft, *_ = manifest.TABLES["figure1"].cells
    on_gpu = hours.on_gpu(gs_soft, "paper")
    assert (on_gpu.value, on_gpu.is_near) == (pytest.approx(250_000 * 2.54 / 3.6e6), False)
    assert hours.on_gpu(gs_soft, "cpu") is None


def named(table, name):
    return next(cell for cell in manifest.TABLES[table].cells if cell.name == name)


def test_hours_of_another_kind_are_marked() -> None:
    joint = "mnist_static_nonlinear_exponential_joint"
    of_gpu = {
        ("figure1", "gs_soft_8"): f"~{250_000 * 2.54 / 3.6e6:.1f}",
        ("figure1", "vq_64"): "None",
        ("table1", joint): f"{2_000_000 * 0.171 / 3.6e6:.1f}",
        ("table1", CELL): f"~{2_000_000 * 0.171 / 3.6e6:.1f}",
        ("table1_settings", "linear_nvil-none"): f"~{2_000_000 * 0.131 / 3.6e6:.1f}",
        ("table2", "mnist_static_1nonlinear_rbm"): "None",
        ("table3", "mnist_static_rbm_normal"): f"{500_000 * 27.1 / 3.6e6:.1f}",
        ("table3", "omniglot_rbm_normal"): f"~{500_000 * 30.7 / 3.6e6:.1f}",
        ("table3", "cifar10_rbm_normal"): f"{500_000 * 30.7 / 3.6e6:.1f}",
    }
    assert {key: str(hours.on_gpu(named(*key), "paper")) for key in of_gpu} == of_gpu
    on_cpu = lambda table, name, budget="cpu": hours.on_cpu(
        manifest.TABLES[table], named(table, name), budget
    )
    # Two cores, three runs at once.
    assert on_cpu("table3", "mnist_static_normal_normal").is_near
    assert not on_cpu("table3", "mnist_static_rbm_normal").is_near, "one core, one run"
    assert on_cpu("table3", "omniglot_rbm_normal").is_near, "another decoder"
    assert not on_cpu("figure1", "gs_soft_64").is_near
    assert on_cpu("figure1", "vimco_512").is_near
    assert on_cpu("figure1", "vimco_512").value > 0.9, "that of vimco with fewer codes"
    assert on_cpu("figure1", "gs_soft_64", "paper") is None, "other sizes"
