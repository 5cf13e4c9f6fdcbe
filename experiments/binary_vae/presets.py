"""Named settings of `binary_vae`: the cells of the published tables, and small ones.

`table1_STRUCTURE_CELL` is a cell of Table 1 of Vahdat et al., "DVAE++" (2018), on static MNIST (add
`--dataset=omniglot` for its lower half), or one of the same model that the table lacks. The paper's
optimizer (Adam with eps 1e-3 at a constant 1e-4 or 5e-4) took millions of steps; these presets take
300,000 at a linearly decaying rate. docs/results/table1 says how near each cell comes.

`table1_published_STRUCTURE_CELL` is the protocol behind the published number, as far as it is
public: of DVAE++ for its own two columns, of the program of Tucker et al. (2017) for the four that
the paper took over. Where those chose among values, one of them stands here.

`disarm_ESTIMATOR` is the benchmark of a later line of papers, with leaky ReLUs, five seeds at once
and pixels sampled anew at every step; `disarm_linear_ESTIMATOR` has affine networks.
"""

from typing import Any

Settings = dict[str, Any]
# The highest learning rate: of relaxations, and of score-function estimators, whose gradients are
# noisier. Larger steps switch latent bits of the nonlinear model off early, and for good.
_RATES = {"linear": (2e-3, 2e-3), "nonlinear": (5e-4, 3e-4)}
# name -> what sets the cell apart
_RELAXED: dict[str, Settings] = {
    "concrete": dict(estimator="concrete", temperature=0.4),
    "exponential_joint": dict(estimator="exponential", beta=8.0, beta_final=14.0),
    "exponential_marginal": dict(
        estimator="exponential", bound="marginal", beta=8.0, beta_final=14.0
    ),
    "power_joint": dict(estimator="power", beta=12.0, beta_final=30.0),
    "straight_through": dict(estimator="straight_through"),
}
_SCORE_FUNCTION: dict[str, Settings] = {
    "nvil": dict(estimator="nvil"),
    "muprop": dict(estimator="muprop"),
    "rebar": dict(estimator="rebar", temperature=0.5),
    "vimco": dict(estimator="vimco", num_samples=2),
    "disarm": dict(estimator="disarm"),
}

PRESETS: dict[str, Settings] = {
    f"table1_{structure}_{cell}": dict(
        settings, structure=structure, learning_rate=rate, test_samples=100
    )
    for structure, rates in _RATES.items()
    for cells, rate in zip((_RELAXED, _SCORE_FUNCTION), rates, strict=True)
    for cell, settings in cells.items()
}
_PUBLISHED: Settings = dict(
    schedule="constant", initial_variance=2.0, num_steps=2_000_000, test_samples=100
)
# Control variates and baselines learn ten times faster.
_TUCKER: Settings = dict(_PUBLISHED, learning_rate=3e-4, adam_b2=0.99999)
_BASELINE: Settings = dict(baseline_learning_rate=3e-3)
_DVAEPP: Settings = dict(_PUBLISHED, learning_rate=5e-4, adam_eps=1e-3)
_PUBLISHED_CELLS: dict[str, Settings] = {
    "nvil": dict(_TUCKER, **_BASELINE, estimator="nvil", nvil_scale="none"),
    "muprop": dict(_TUCKER, **_BASELINE, estimator="muprop", muprop_scales="learned"),
    "rebar": dict(
        _TUCKER,
        estimator="rebar",
        temperature=0.5,
        rebar_eta="variables",
        rebar_baseline="learned",
        rebar_scale="muprop",
    ),
    "concrete": dict(
        _TUCKER,
        estimator="concrete",
        temperature=0.5,
        concrete_kl="sample",
        concrete_scale="muprop",
    ),
    "exponential_joint": dict(_DVAEPP, **_RELAXED["exponential_joint"]),
    "exponential_marginal": dict(_DVAEPP, **_RELAXED["exponential_marginal"]),
}
PRESETS |= {
    f"table1_published_{structure}_{cell}": dict(settings, structure=structure)
    for structure in _RATES
    for cell, settings in _PUBLISHED_CELLS.items()
}
# Table 2 of the same paper and the relaxed priors of "DVAE#" (2018), with the settings of both:
# smoothings' inverse temperatures for linear, one-group and several-group nonlinear models on
# static MNIST (on OMNIGLOT the authors had others, of 4 to 40 too: give --beta).
_TABLE2_CELLS: dict[str, tuple[Settings, tuple[float, float, float]]] = {
    "rbm": (dict(prior="rbm", method="dvaepp"), (12.0, 14.0, 10.0)),
    "rbm_power": (dict(prior="rbm", method="dvaepp", smoothing="power"), (40.0, 30.0, 30.0)),
    "rbm_rolfe": (dict(prior="rbm", method="dvae"), (5.0, 5.0, 4.0)),
    "joint": (dict(), (12.0, 14.0, 10.0)),
    "marginal": (dict(bound="marginal"), (12.0, 14.0, 10.0)),
    **{
        f"relaxed_{smoothing}_k{k}": (
            dict(
                prior="rbm",
                method="dvaes",
                smoothing=smoothing,
                bound="elbo" if k == 1 else "iw",
                num_samples=k,
            ),
            betas,
        )
        for smoothing, betas in (
            ("exponential", (12.0, 12.0, 10.0)),
            ("power", (40.0, 40.0, 30.0)),
            ("gaussian_integral", (40.0, 30.0, 30.0)),
        )
        for k in (1, 5, 25)
    },
}
_TABLE2_GROUPS = {1: 200, 2: 200, 4: 100}  # number of groups -> bits of each
_BUDGETS: dict[str, Settings] = {
    "table2": dict(num_steps=1_000_000, num_chains=1_000, num_sweeps=40),
    # For a CPU: a tenth of the steps, a twentieth of the sampling, the whole test set all the same.
    "table2_cpu": dict(
        num_steps=100_000,
        num_chains=100,
        num_sweeps=20,
        eval_interval=10_000,
        checkpoint_interval=10_000,
        num_eval_images=1_000,
        num_validation_images=1_000,
    ),
}


def _table2(budget: str, structure: str, num_groups: int, cell: str) -> Settings:
    settings, betas = _TABLE2_CELLS[cell]
    deep = structure == "nonlinear"
    return dict(
        settings,
        **_BUDGETS[budget],
        structure=structure,
        num_groups=num_groups,
        num_latents=_TABLE2_GROUPS[num_groups],
        beta=betas[(1 if num_groups == 1 else 2) if deep else 0],
        batch_size=100,
        learning_rate=3e-3,
        schedule="staircase",
        adam_eps=1e-3,
        weight_decay=1e-4,
        normalization="batch" if deep else "none",
        kl_warmup_steps=3 * _BUDGETS[budget]["num_steps"] // 10,
    )


PRESETS |= {
    f"{budget}_{num_groups}{structure}_{cell}": _table2(budget, structure, num_groups, cell)
    for budget in _BUDGETS
    for structure, num_groups in (
        ("linear", 1),
        ("linear", 2),
        ("nonlinear", 1),
        ("nonlinear", 2),
        ("nonlinear", 4),
    )
    for cell in _TABLE2_CELLS
}
# 200 units on graphs from sparse to complete, trained alike: one group of the nonlinear model. Of
# the annealers' graphs chimera:5 alone has 200 units.
BOLTZMANN_GRAPHS = {
    "bipartite": "bipartite",
    "four_partite": "four_partite",
    "complete": "complete",
    "chimera": "chimera:5",
}
_OF_RBM = _table2("table2_cpu", "nonlinear", 1, "rbm")
del _OF_RBM["method"]  # there is one
PRESETS |= {
    f"boltzmann_mnist_{name}": dict(_OF_RBM, prior="boltzmann", graph=graph)
    for name, graph in BOLTZMANN_GRAPHS.items()
}
# The protocol that the papers on DisARM, ARMS, double control variates and RODEO share (2020-2022),
# at four evaluations of the decoder an image for every estimator.
_DISARM: Settings = dict(
    dataset="mnist_dynamic",
    batch_size=50,
    learning_rate=1e-4,
    schedule="constant",
    prior_learning_rate=1e-2,
    num_steps=1_000_000,
    num_seeds=5,
    test_samples=100,
    num_training_images=10_000,
    gradient_draws=20,
)
DISARM_CELLS: dict[str, Settings] = {
    "disarm": dict(estimator="disarm", disarm_pairs=2),
    **{
        estimator: dict(estimator=estimator, num_samples=4)
        for estimator in ("double_cv", "arms", "rodeo", "reinforce_loo", "vimco")
    },
}
_DISARM_NETWORKS: dict[str, Settings] = {
    "": dict(activation="leaky_relu"),
    "linear_": dict(structure="linear"),
}
PRESETS |= {
    f"disarm_{prefix}{cell}": dict(_DISARM, **networks, **settings)
    for prefix, networks in _DISARM_NETWORKS.items()
    for cell, settings in DISARM_CELLS.items()
}
PRESETS |= {
    "demo": dict(
        dataset="digits",
        num_latents=50,
        hidden_units=100,
        learning_rate=1e-3,
        num_steps=10_000,
        log_interval=500,
        eval_interval=1_000,
        num_eval_images=250,
        checkpoint_interval=2_000,
        test_samples=1_000,
    ),
    "smoke": dict(
        dataset="digits",
        num_latents=6,
        hidden_units=8,
        batch_size=8,
        num_steps=8,
        steps_per_call=2,
        log_interval=4,
        eval_interval=4,
        eval_samples=5,
        num_eval_images=16,
        test_samples=10,
        num_test_images=16,
        eval_batch_size=8,
        checkpoint_interval=4,
    ),
}
