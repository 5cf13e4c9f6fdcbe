"""Pairs of runs: cells of Table 1 by our settings, and by single ones of the published protocol."""

from collections.abc import Iterator

from experiments import table1
from experiments.binary_vae.program import PROGRAM
from experiments.reproduce.cells import CPU, DVAEPP, PAPER, Cell, Recipe, Settings

_OF_TUCKER = ("nvil", "muprop", "rebar", "concrete")
_OF_DVAEPP = ("exponential_joint", "exponential_marginal")
# name -> the cells that take it, and the one setting that it changes in their presets
_CHANGES: dict[str, tuple[tuple[str, ...], Settings]] = {
    "none": ((*_OF_TUCKER, *_OF_DVAEPP), {}),
    "constant_rate": ((*_OF_TUCKER, *_OF_DVAEPP), {"schedule": "constant"}),
    "initial_variance": ((*_OF_TUCKER, *_OF_DVAEPP), {"initial_variance": 2.0}),
    # The rate of the published presets, and the other one that DVAE++ chose from.
    "rate_3e-4": (_OF_TUCKER, {"learning_rate": 3e-4}),
    "rate_5e-4": (_OF_DVAEPP, {"learning_rate": 5e-4}),
    "rate_1e-4": (_OF_DVAEPP, {"learning_rate": 1e-4}),
    "adam_b2": (_OF_TUCKER, {"adam_b2": 0.99999}),
    "adam_eps": (_OF_DVAEPP, {"adam_eps": 1e-3}),
    "baseline_rate": (("nvil", "muprop"), {}),  # _TIMES the model's
    "no_scale": (("nvil",), {"nvil_scale": "none"}),
    "learned_scales": (("muprop",), {"muprop_scales": "learned"}),
    "eta_of_variables": (("rebar",), {"rebar_eta": "variables"}),
    "baseline": (("rebar",), {"rebar_baseline": "learned"}),
    "toward_mean": (("rebar",), {"rebar_scale": "muprop"}),
    "sampled_kl": (("concrete",), {"concrete_kl": "sample"}),
    "scaled_logits": (("concrete",), {"concrete_scale": "muprop"}),
    "temperature": (("concrete",), {"temperature": 0.5}),
}
_TIMES = 10
_PAIRED_STEPS = {"nvil": 500_000}  # of a CPU; 300,000 of the others


def table1_settings() -> Iterator[Cell]:
    """Yields pairs with Table 1's cells on static MNIST: our preset, one change, and all of them.

    The last is the published protocol.
    """
    for structure in ("linear", "nonlinear"):
        published = table1.PUBLISHED["mnist_static", structure]
        for cell in (*_OF_TUCKER, *_OF_DVAEPP):
            ours = f"table1_{structure}_{cell}"
            preset_of_ours = PROGRAM.presets[ours]
            rate = preset_of_ours["learning_rate"]
            recipes: dict[str, tuple[str, Settings]] = {}
            for change, (cells, settings) in _CHANGES.items():
                is_ours = bool(settings) and settings.items() <= preset_of_ours.items()
                if cell in cells and not is_ours:
                    more = dict(settings)
                    if change == "baseline_rate":
                        more["baseline_learning_rate"] = round(_TIMES * rate, 6)
                    recipes[change] = ours, more
            recipes["published"] = f"table1_published_{structure}_{cell}", {}
            value, deviation = published[cell.replace("_", " ")]
            for change, (preset, more) in recipes.items():
                lengths = {PAPER: table1.PUBLISHED_STEPS, CPU: _PAIRED_STEPS.get(cell, 300_000)}
                yield Cell(
                    f"{structure}_{cell}-{change}",
                    PROGRAM,
                    "mnist_static",
                    {b: Recipe(preset, {**more, "num_steps": n}) for b, n in lengths.items()},
                    f"{DVAEPP}, Table 1",
                    value,
                    deviation,
                    table1.PUBLISHED_STEPS,
                )
