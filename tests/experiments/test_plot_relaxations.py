"""The figures of the relaxations: files, numbers against closed forms, mistakes."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dvae import relax
from experiments import plot_relaxations as program
from experiments.common import flags

FIGURES = {
    "smoothing_densities", "mixture_mu_075", "inverse_cdf", "spike_exp_vs_exponential",
    "concrete_comparison",
}  # fmt: skip
SYMMETRIC = ("power", "exponential", "uniform_exp", "logistic", "gaussian")
MU = np.arange(1, 20) / 20


@pytest.fixture(name="drawn", scope="module")
def draw_once(tmp_path_factory):
    """The directory and the JSON of one run."""
    config = program.Config(out=str(tmp_path_factory.mktemp("out") / "new"), betas="20,5")
    program.prepare(config)
    record = program.draw(config)
    return tmp_path_factory.getbasetemp() / config.out, record


@pytest.mark.thorough
def test_files(drawn) -> None:
    out, record = drawn
    assert {p.name for p in out.iterdir()} == {f"{n}.png" for n in FIGURES} | {"curves.json"}
    assert json.loads((out / "curves.json").read_text()) == record
    for path in out.glob("*.png"):
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert min(image.size) > 200
    assert record["betas"] == [5.0, 20.0]
    np.testing.assert_allclose(record["mu"], MU, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SYMMETRIC)
def test_an_even_bit_is_one_half_by_symmetry(drawn, name) -> None:
    for values in drawn[1]["smoothings"][name]["inverse_cdf"].values():
        assert values[9] == pytest.approx(0.5, abs=1e-5)
        np.testing.assert_allclose(np.add(values, values[::-1]), 1, atol=1e-5)


@pytest.mark.thorough
def test_inverse_cdfs_equal_the_closed_forms(drawn) -> None:
    smoothings = drawn[1]["smoothings"]
    for beta in (5.0, 20.0):
        # DVAE++, Eq. (3), in float64, at rho = 1/2.
        e = math.exp(-beta)
        b, c = (0.5 + e * (MU - 0.5)) / (1 - MU) - 1, -MU * e / (1 - MU)
        expected = -np.log((-b + np.sqrt(b * b - 4 * c)) / 2) / beta
        found = smoothings["exponential"]["inverse_cdf"][f"{beta:g}"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        u = np.maximum((MU - 0.5) / MU, 0)
        spike = smoothings["spike_exp"]["inverse_cdf"][f"{beta:g}"]
        np.testing.assert_allclose(spike, np.log1p(u * np.expm1(beta)) / beta, atol=1e-5)
        # What it returns for the power family has the CDF 1/2.
        zeta = np.array(smoothings["power"]["inverse_cdf"][f"{beta:g}"])
        inner = (zeta > 1e-4) & (zeta < 1 - 1e-4)
        assert inner.sum() >= 3
        cdf = (1 - MU) * zeta ** (1 / beta) + MU * (1 - (1 - zeta) ** (1 / beta))
        np.testing.assert_allclose(cdf[inner], 0.5, atol=1e-4)


@pytest.mark.parametrize(("name", "bound"), [("power", 1e-3), ("exponential", 0.03)])
def test_sharp_smoothings_are_the_step(name, bound) -> None:
    step = np.array(relax.step.icdf(0.5, jnp.asarray(np.log(program.UNIT / (1 - program.UNIT)))))
    found = program.inverse_cdf(relax.SMOOTHINGS[name].icdf, 100.0)
    away = np.abs(program.UNIT - 0.5) > 0.06
    assert np.abs(found - step)[away].max() < bound
    assert np.abs(program.inverse_cdf(relax.SMOOTHINGS[name].icdf, 2.0) - step)[away].max() > 0.1


def test_densities_equal_the_closed_forms(drawn) -> None:
    smoothings = drawn[1]["smoothings"]
    zeta, beta = MU, 10.0
    power, exponential = smoothings["power"], smoothings["exponential"]
    np.testing.assert_allclose(power["r_0"], zeta ** (1 / beta - 1) / beta, rtol=1e-4)
    expected = beta * np.exp(-beta * zeta) / (1 - math.exp(-beta))
    np.testing.assert_allclose(exponential["r_0"], expected, rtol=1e-4)
    spike = smoothings["spike_exp"]
    assert spike["r_0"] is None
    assert spike["mass_at_zero"] == 0.25
    np.testing.assert_allclose(spike["r_1"], expected[::-1], rtol=1e-4)
    np.testing.assert_allclose(spike["mixture_mu_075"], 0.75 * expected[::-1], rtol=1e-4)
    for name in SYMMETRIC:
        one = smoothings[name]
        mixed = 0.25 * np.array(one["r_0"]) + 0.75 * np.array(one["r_1"])
        np.testing.assert_allclose(one["mixture_mu_075"], mixed, rtol=1e-4)
        np.testing.assert_allclose(one["r_1"], one["r_0"][::-1], rtol=1e-4)
        assert one["mass_at_zero"] == 0


def test_sharpness_is_matched_and_only_concrete_gets_quieter(drawn) -> None:
    compared = drawn[1]["concrete_comparison"]["relaxations"]
    noise = {name: np.array(values["noise"]) for name, values in compared.items()}
    target = math.tanh(10 / 4) / 10
    for values in noise.values():
        assert values[0] == pytest.approx(target, rel=1e-4)
    # The noise of a smoothing is the same for all logits, here also by the power's closed form.
    np.testing.assert_allclose(noise["exponential"], target, rtol=1e-4)
    a = 1 / compared["power"]["beta"]
    np.testing.assert_allclose(noise["power"], (1 - 2**-a) / (a + 1), rtol=1e-4)
    assert noise["binary Concrete"][-1] < target / 100
    relative = {
        name: np.array(v["second_moment_of_slope"]) / np.square(v["mean_slope"])
        for name, v in compared.items()
    }
    assert relative["power"].max() < 2 * relative["power"][0]
    assert relative["binary Concrete"][0] < relative["exponential"][0]
    assert relative["binary Concrete"][-1] > 10 * relative["exponential"][-1]


@pytest.mark.parametrize("logit", [0.0, 3.0])
def test_moments_of_concrete_equal_an_integral_over_noise(logit) -> None:
    tau = 0.4
    rho = (np.arange(200_000) + 0.5) / 200_000
    y = (logit + np.log(rho) - np.log1p(-rho)) / tau
    slope = 1 / (tau * (2 + np.exp(y) + np.exp(-y)))
    expected = np.mean(1 / (1 + np.exp(np.abs(y)))), np.mean(slope), np.mean(slope**2)
    found = program.moments(program.CONCRETE, jnp.asarray(program.LOGITS), 1 / tau)
    at = int(np.flatnonzero(logit == program.LOGITS)[0])
    np.testing.assert_allclose([float(m[at]) for m in found], expected, rtol=1e-4)


@pytest.mark.parametrize("logit", [0.0, 3.0])
def test_moments_of_the_exponential_equal_an_integral_over_zeta(logit) -> None:
    beta, q = 10.0, 1 / (1 + math.exp(-logit))
    zeta = (np.arange(100_000) + 0.5) / 100_000
    norm = 1 - math.exp(-beta)
    r_0, r_1 = (beta * np.exp(-beta * x) / norm for x in (zeta, 1 - zeta))
    gap = (1 - np.exp(-beta * zeta) - np.exp(-beta * (1 - zeta)) + math.exp(-beta)) / norm
    slope = q * (1 - q) * gap
    f = (1 - q) * r_0 + q * r_1
    expected = np.mean(np.minimum(zeta, 1 - zeta) * f), np.mean(slope), np.mean(slope**2 / f)
    found = program.moments(program.EXPONENTIAL, jnp.asarray(program.LOGITS), beta)
    at = int(np.flatnonzero(logit == program.LOGITS)[0])
    np.testing.assert_allclose([float(m[at]) for m in found], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beta": 0.0}, "--beta=0.0 must be at least 0.5"),
        ({"beta": -1.0}, "--beta=-1.0 must be at least 0.5"),
        ({"beta": math.nan}, "--beta=nan must be finite"),
        ({"beta": 1000.0}, "--beta=1000.0 must be at most 100"),
        ({"betas": "2,0"}, "--betas=2,0 must be 1 to 6 numbers in [0.5, 100]"),
        ({"betas": "2,-1"}, "--betas=2,-1 must be"),
        ({"betas": ""}, "--betas= must be"),
        ({"betas": "1,2,3,4,5,6,7"}, "must be 1 to 6 numbers"),
        ({"betas": "two"}, "--betas=two must be"),
    ],
)
def test_bad_flags_end_in_one_line(monkeypatch, capsys, given, message) -> None:
    monkeypatch.setattr(flags, "parse", lambda config_class: config_class(**given))
    with pytest.raises(SystemExit) as raised:
        program.main(["plot_relaxations"])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_place_that_cannot_be_written_ends_in_one_line(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "out")
    monkeypatch.setattr(flags, "parse", lambda config_class: config_class(out=out))
    with pytest.raises(SystemExit) as raised:
        program.main(["plot_relaxations"])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert f"cannot write to {out}" in error
    assert error.count("\n") == 1


def test_a_read_only_place_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(program.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match="Permission denied"):
        program.prepare(program.Config(out=str(tmp_path)))


def test_arguments_are_refused(capsys) -> None:
    with pytest.raises(SystemExit):
        program.main(["plot_relaxations", "extra"])
    assert "unexpected arguments: extra" in capsys.readouterr().err
