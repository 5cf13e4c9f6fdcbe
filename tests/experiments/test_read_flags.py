"""Flags that do nothing are refused: the tables of what is read beside what, against the code.

Of every choice of estimator and the like a task is assembled and traced. What the tables call idle
must change nothing in it; what they call read must have been read.
"""

import dataclasses
import re
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from programs import EXPERIMENTS

from dvae import data
from dvae.train import sharding
from experiments.binary_vae import __main__ as binary_vae
from experiments.binary_vae import evaluation as binary_evaluation
from experiments.binary_vae import names
from experiments.cifar_vq import __main__ as cifar_vq
from experiments.cifar_vq import evaluation as vq_evaluation
from experiments.cifar_vq import names as vq
from experiments.common import flag_rules, flags
from experiments.dvaepp import __main__ as dvaepp
from experiments.dvaepp import evaluation as dvaepp_evaluation
from experiments.dvaepp.config import GLOBAL_LATENTS
from experiments.gradient_variance import config as gradient_variance_config
from experiments.joint_vae import __main__ as joint_vae
from experiments.joint_vae import evaluation as joint_evaluation

PROGRAMS = {
    "cifar_vq": cifar_vq,
    "binary_vae": binary_vae,
    "joint_vae": joint_vae,
    "dvaepp": dvaepp,
}
LINEAR, RBM = {"structure": "linear"}, {"prior": "rbm", "num_chains": 4}
CHOICES = {
    "cifar_vq": [
        *({"estimator": name} for name in vq.ESTIMATORS),
        {"eval_interval": 0},
        {"learning_rate_schedule": "cosine"},
        {"validation": False},
    ],
    "binary_vae": [
        *({"estimator": name} for name in names.ESTIMATORS),
        *({"estimator": name, "num_groups": 2} for name in (names.NVIL, names.VIMCO)),
        {"estimator": names.EXPONENTIAL, "bound": "marginal", "beta_final": 9.0, **LINEAR},
        {**RBM, "method": "dvae", "sampler": "tempering"},
        {**RBM, "method": "dvaepp", "sampler": "annealing"},
        {**RBM, "method": "dvaes", "bound": "elbo"},
        {**RBM, "method": "dvaes", "beta_final": 9.0, "smoothing": "power"},
        {**RBM, "method": "dvaes", "smoothing": "gaussian_integral"},
        {"prior": "boltzmann", "num_chains": 4, "graph": "complete", "sampler": "annealing"},
        {"eval_interval": 0},
    ],
    "joint_vae": [
        *({"objective": name} for name in ("capacity", "elbo", "beta")),
        {"continuous": 0},
        {"discrete": ""},
        {"eval_interval": 0},
        {"validation": False},
    ],
    "dvaepp": [
        *({"global_latents": name} for name in GLOBAL_LATENTS),
        {"global_latents": "normal", "local_latents": "bernoulli"},
        {"global_latents": "rbm", "sampler": "tempering", "num_chains": 4},
        {"local_groups": 0, "global_latents": "normal"},
        {"kl_warmup_steps": 0, "eval_interval": 0},
        {"dataset": "patches", "decoder": "conditional"},
        {"local_latents": "bernoulli", "beta_final": 9.0},
    ],
}
# One choice of each kind; the others take as long again each.
QUICK = {
    "cifar_vq": (0, 2, 4, 5, 6, 11, 12, 13, 14),
    "binary_vae": (0, 6, 9, 12, 15, 20, 22, 23, 26, 28, 30),
    "joint_vae": range(7),
    "dvaepp": (0, 2, 5),
}
CASES = [
    pytest.param(program, i, marks=[] if i in QUICK[program] else [pytest.mark.slow])
    for program, choices in CHOICES.items()
    for i in range(len(choices))
]
# Valid beside anything, where twice the value or another choice is not.
OTHER = {"ema_decay": 0.5, "num_scales": 1, "restart_threshold": 0.5, "hidden_layers": 3}
OTHER |= {"adapt_interval": 3, "beta_steps": 3, "kl_warmup_steps": 3, "num_mixtures": 3}
OTHER |= {"levels": "4,4", "graph": "four_partite"}
QUIET = (
    "dataclasses",
    *(f"experiments.common.{name}" for name in ("flags", "flag_rules", "names")),
)


def recording(config):
    """The same configuration, and the names of the fields that code reads of it from now on."""
    read = set()

    class Recorded(type(config)):
        def __getattribute__(self, name):
            if sys._getframe(1).f_globals["__name__"] not in QUIET:
                read.add(name)
            return super().__getattribute__(name)

    copy = object.__new__(Recorded)
    for field in dataclasses.fields(config):
        object.__setattr__(copy, field.name, getattr(config, field.name))
    return copy, read


def configuration(program, choice, **changed):
    """A tiny run of these choices, on a preset that leaves nothing else to them."""
    config_class, presets = EXPERIMENTS[program]
    smoke = {**presets["smoke"], **({} if program == "joint_vae" else {"kl_warmup_steps": 4})}
    return config_class(**{**smoke, **choice, **changed})


def idle_fields(config):
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return set(flag_rules.idle(type(config).READ_WITH, values))


def another(config, name):
    """A value of a field that it does not have."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    now = getattr(config, name)
    if name in OTHER and OTHER[name] != now:
        return OTHER[name]
    if field.metadata["choices"]:
        return next(c for c in field.metadata["choices"] if c not in ("", now))
    return 2 * now + 1


def changed_unchecked(config, fields):
    """The configuration with other values in these fields, whether they suit the rest or not."""
    copy = object.__new__(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        new = another(config, field.name) if field.name in fields else value
        object.__setattr__(copy, field.name, new)
    return copy


def images_of(config):
    loaded = data.load_grey(config.dataset) if config.image_size else None
    loaded = loaded or data.load(config.dataset)
    small = {split: getattr(loaded, split)[:16] for split in ("train", "validation", "test")}
    labels = {f"{split}_labels": None for split in small}
    small = loaded._replace(**small, **labels)
    return data.resized(small, config.image_size) if config.image_size else small


def trace(program, config, *, compared=True):
    """A task whose start and step were traced; its step's jaxpr as text and constants."""
    task = PROGRAMS[program].make_task(config, images_of(config), sharding.make_mesh(1))
    state = jax.eval_shape(task.init, task.key_init, task.data)
    if not compared:
        jax.eval_shape(task.step, state, task.data, task.key_train)
        return task, None
    step = jax.make_jaxpr(task.step)(state, task.data, task.key_train)
    # Addresses of functions differ from trace to trace.
    return task, (re.sub(r"0x[0-9a-f]+", "", str(step.jaxpr)), [np.asarray(c) for c in step.consts])


def same(a, b):
    """Whether traces agree."""
    (text, constants), (other_text, others) = a, b
    return (
        text == other_text
        and len(constants) == len(others)
        and all(np.array_equal(c, d) for c, d in zip(constants, others, strict=True))
    )


@pytest.fixture(autouse=True)
def evaluate_nothing(monkeypatch):
    """A validation asks for its numbers, and is given none."""
    nothing = SimpleNamespace(means=dict)
    for module in (binary_evaluation, dvaepp_evaluation, joint_evaluation, vq_evaluation):
        monkeypatch.setattr(module.Evaluator, "evaluate", lambda *_, **__: nothing)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize(("program", "index"), CASES)
def test_idle_flags_change_nothing_and_the_others_are_read(program, index) -> None:
    config = configuration(program, CHOICES[program][index])
    idle = idle_fields(config)
    recorded, read = recording(config)
    task, _ = trace(program, recorded, compared=False)
    if config.eval_interval:
        task.evaluate(SimpleNamespace(params=None, model_state=None))
    allowed = set(type(config).READ_WITH) - idle
    # Read by the loop, and in final evaluations and records alone.
    missing = allowed - read - {"ais_temperatures", "ais_chains", "eval_interval", "test_samples"}
    assert not missing
    assert idle
    if idle & read - {"bound"}:  # a bound that is read where it leaves no choice has one value
        assert same(
            *(trace(program, c)[1] for c in (config, changed_unchecked(config, idle - {"bound"})))
        )


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_choices_cover_every_rule(program) -> None:
    rules = EXPERIMENTS[program][0].READ_WITH
    idle = [idle_fields(configuration(program, choice)) for choice in CHOICES[program]]
    for field in rules:
        assert any(field in fields for fields in idle), f"{field} is never idle"
        assert any(field not in fields for fields in idle), f"{field} is never read"
    if program in ("cifar_vq", "binary_vae"):
        (choices,) = (
            field.metadata["choices"]
            for field in dataclasses.fields(EXPERIMENTS[program][0])
            if field.name == "estimator"
        )
        assert set(choices) <= {choice.get("estimator") for choice in CHOICES[program]}


def test_a_trace_shows_what_is_read() -> None:
    """The comparison of traces can fail."""
    config = configuration("cifar_vq", {"estimator": "gs_soft"})
    _, one = trace("cifar_vq", config)
    _, other = trace("cifar_vq", changed_unchecked(config, {"temperature"}))
    assert not same(one, other)


@pytest.mark.parametrize("estimators", ["disarm", "rebar,nvil", "exponential", "concrete", "all"])
def test_idle_lists_of_gradient_variance_change_no_case(estimators) -> None:
    config = gradient_variance_config.Config(estimators=estimators, structure="linear")
    changed = {"betas": "3", "temperatures": "0.7", "tune_steps": 9, "hidden_units": 7}
    values = dataclasses.asdict(config)
    idle = set(flag_rules.idle(config.READ_WITH, values))
    cases = gradient_variance_config.cases
    for name, value in changed.items():
        other = dataclasses.replace(config, **{name: value})
        same_cases = cases(other) == cases(config)
        if name in ("betas", "temperatures"):
            assert same_cases == (name in idle), name
        if name == "tune_steps":
            assert (name in idle) != any(case.tuned for case in cases(config))
    assert "hidden_units" in idle
    assert other.experiment().model(8) == config.experiment().model(8)


def test_messages_name_what_a_flag_goes_with() -> None:
    one_of, positive = flag_rules.one_of, flag_rules.POSITIVE
    rules = {
        "t": [{"e": one_of("a", "b", "c")}],
        "s": [{"p": one_of("x"), "e": one_of("a")}, {"p": one_of("y")}],
        "n": [{"k": positive, "e": one_of("a")}],
    }
    values = {"e": "d", "p": "x", "k": 0, "t": 1, "s": 1, "n": 1}
    assert flag_rules.idle(rules, values) == {
        "t": "--e=a, b or c, got --e=d",
        "s": "--e=a, or --p=y, got --e=d, --p=x",
        "n": "--k above 0 and --e=a, got --k=0, --e=d",
    }
    assert flag_rules.idle(rules, {**values, "e": "a", "k": 1}) == {}
    assert set(flag_rules.idle(rules, {**values, "p": "y"})) == {"t", "n"}


def test_rules_name_fields_and_choices_that_exist() -> None:
    for program, (config_class, _) in EXPERIMENTS.items():
        fields = {field.name: field for field in dataclasses.fields(config_class)}
        for field, alternatives in flags.rules_of(config_class).items():
            assert field in fields, (program, field)
            for alternative in alternatives:
                for name, condition in alternative.items():
                    choices = fields[name].metadata["choices"]
                    if fields[name].metadata["source"]:
                        choices = (*choices, "own", "images")
                    if choices:
                        held = [choice for choice in choices if condition.holds(choice)]
                        assert held, (program, field, name)
                        for word in condition.text.strip("=").replace(",", "").split():
                            assert word == "or" or word in choices, (program, field, word)
