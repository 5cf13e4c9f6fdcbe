"""Named settings of `dvaepp`: the rows of the published table, and small ones."""

from typing import Any

from experiments.dvaepp.config import BERNOULLI, CONDITIONAL, NORMAL, RBM, RBM_ROLFE

# The rows of the paper's Table 3.
ROWS: dict[str, dict[str, Any]] = {
    "normal_normal": dict(global_latents=NORMAL, local_latents=NORMAL),
    "rolfe_normal": dict(global_latents=RBM_ROLFE, local_latents=NORMAL, beta=5.0),
    "rbm_normal": dict(global_latents=RBM, local_latents=NORMAL),
    "rbm_bernoulli": dict(global_latents=RBM, local_latents=BERNOULLI),
    "bernoulli_bernoulli": dict(global_latents=BERNOULLI, local_latents=BERNOULLI),
}
_BUDGETS: dict[str, dict[str, Any]] = {
    "table3": dict(kl_warmup_steps=150_000),
    # For a CPU: a quarter of the groups and of their channels, narrow networks.
    "table3_cpu": dict(
        local_groups=4,
        local_size=8,
        features=8,
        num_chains=100,
        num_sweeps=10,
        batch_size=32,
        num_steps=30_000,
        kl_warmup_steps=9_000,
        eval_interval=2_000,
        checkpoint_interval=2_000,
        test_samples=100,
        num_validation_images=1_000,
    ),
}
PRESETS: dict[str, dict[str, Any]] = {
    f"{budget}_{row}": {**settings, **kind}
    for budget, settings in _BUDGETS.items()
    for row, kind in ROWS.items()
}
# Smoothed bits that begin softer and end sharper than at the constant 10 of the rows.
PRESETS |= {
    f"{budget}_rbm_bernoulli_annealed": {
        **PRESETS[f"{budget}_rbm_bernoulli"],
        "beta": 8.0,
        "beta_final": 14.0,
    }
    for budget in _BUDGETS
}
PRESETS |= {
    "cifar10": dict(
        dataset="cifar10",
        decoder=CONDITIONAL,
        num_latents=64,
        kl_warmup_steps=150_000,
        log_z_interval=100,  # balancing weighs by it, and the machine can't be enumerated
    ),
    "demo": dict(
        dataset="digits",
        local_groups=2,
        local_size=4,
        features=8,
        num_chains=100,
        num_sweeps=10,
        num_steps=3_000,
        kl_warmup_steps=900,
        eval_interval=500,
        num_eval_images=250,
        checkpoint_interval=500,
        test_samples=500,
    ),
    "smoke": dict(
        dataset="digits",
        local_groups=2,
        local_size=2,
        num_latents=2,
        features=1,
        num_blocks=0,
        hidden_units=4,
        num_chains=16,
        num_sweeps=2,
        ais_temperatures=50,
        ais_chains=64,
        batch_size=8,
        num_steps=8,
        steps_per_call=2,
        kl_warmup_steps=4,
        log_interval=4,
        eval_interval=4,
        eval_samples=3,
        num_eval_images=16,
        test_samples=5,
        num_test_images=16,
        eval_batch_size=8,
        checkpoint_interval=4,
    ),
}
