"""Named settings of `binary_vae`: the cells of the published tables, and small ones.

`table1_STRUCTURE_CELL` is a cell of Table 1 of Vahdat et al., "DVAE++" (2018), on static MNIST (add
`--dataset=omniglot` for its lower half), or one of the same model that the table lacks. The paper's
optimizer (Adam with eps 1e-3 at a constant 1e-4 or 5e-4) took millions of steps; these presets take
300,000 at a linearly decaying rate. README.md says how near each cell comes.
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
TABLE1_CELLS = (*_RELAXED, *_SCORE_FUNCTION)

PRESETS: dict[str, Settings] = {
    f"table1_{structure}_{cell}": dict(
        settings, structure=structure, learning_rate=rate, test_samples=100
    )
    for structure, rates in _RATES.items()
    for cells, rate in zip((_RELAXED, _SCORE_FUNCTION), rates, strict=True)
    for cell, settings in cells.items()
}
# The directed columns of Table 2 at its two-group sizes, with its KL warm-up; the paper's models
# have batch normalization too.
PRESETS |= {
    f"table2_2{structure}_{bound}": dict(
        structure=structure,
        num_groups=2,
        estimator="exponential",
        bound=bound,
        beta=8.0,
        beta_final=14.0,
        batch_size=100,
        learning_rate=rates[0],
        kl_warmup_steps=90_000,
    )
    for structure, rates in _RATES.items()
    for bound in ("joint", "marginal")
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
