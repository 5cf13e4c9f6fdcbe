"""Which flags of `binary_vae` are read beside which others."""

from experiments.binary_vae import names
from experiments.boltzmann import config as boltzmann_config
from experiments.common.flag_rules import POSITIVE, VALIDATED, Alternative, Rules, one_of

_MACHINE: Alternative = {"prior": one_of(*names.MACHINES)}
_RBM: Alternative = {"prior": one_of(names.BOLTZMANN)}
_DEEP = [{"structure": one_of(names.NONLINEAR)}]
_IMPORTANCE = {"method": one_of(names.DVAES), "bound": one_of("", names.IW)}
_WITH_TEMPERATURE = (names.CONCRETE, names.GUMBEL_RAO, *names.RELAXED_CONTROL)


def _trained_by(*estimators: str) -> Alternative:
    return {"prior": one_of(names.DIRECTED), "estimator": one_of(*estimators)}


_SMOOTHED = [_trained_by(*names.SMOOTHINGS), _MACHINE]
_CONCRETE = [{**_trained_by(names.CONCRETE), "bound": one_of("", names.JOINT)}]
READ_WITH: Rules = {
    **boltzmann_config.rules(_MACHINE),
    "estimator": [{"prior": one_of(names.DIRECTED)}],
    "graph": [{"prior": one_of(names.GENERAL)}],
    "method": [_RBM],
    "smoothing": [_MACHINE],
    # Elsewhere a bound leaves no choice.
    "bound": [
        _trained_by(*names.WITH_DENSITY),
        {**_RBM, "method": one_of(names.DVAES)},
    ],
    "beta": _SMOOTHED,
    "beta_final": _SMOOTHED,
    "beta_steps": [{**chosen, "beta_final": POSITIVE} for chosen in _SMOOTHED],
    "temperature": [_trained_by(*_WITH_TEMPERATURE)],
    "num_samples": [
        _trained_by(*names.MULTI_SAMPLE, names.LOCAL_DISARM, names.GUMBEL_RAO),
        {**_RBM, **_IMPORTANCE},
    ],
    "control_rate": [_trained_by(*names.LEARNED_CONTROL)],
    "concrete_kl": _CONCRETE,
    "concrete_scale": _CONCRETE,
    "nvil_scale": [_trained_by(names.NVIL)],
    "muprop_scales": [_trained_by(names.MUPROP)],
    "rebar_eta": [_trained_by(names.REBAR)],
    "rebar_baseline": [_trained_by(names.REBAR)],
    "rebar_scale": [_trained_by(names.REBAR)],
    "baseline_learning_rate": [_trained_by(*names.LEARNED_BASELINE)],
    "disarm_pairs": [_trained_by(names.DISARM)],
    "prior_learning_rate": [{"prior": one_of(names.DIRECTED)}],
    "gradient_draws": [{"prior": one_of(names.DIRECTED), **VALIDATED[0]}],
    "activation": _DEEP,
    "hidden_units": _DEEP,
    "hidden_layers": _DEEP,
    "eval_samples": VALIDATED,
    "num_eval_images": VALIDATED,
}
