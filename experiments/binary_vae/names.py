"""The names that flags of `binary_vae` take, and what the estimators have in common."""

from experiments.boltzmann import names as boltzmann_names
from experiments.common import pixels

EXPONENTIAL, SPIKE_EXP = boltzmann_names.EXPONENTIAL, boltzmann_names.SPIKE_EXP
SMOOTHINGS, OVERLAPPING = boltzmann_names.SMOOTHINGS, boltzmann_names.OVERLAPPING
CONCRETE = "concrete"
GAUSSIAN_INTEGRAL = "gaussian_integral"
STRAIGHT_THROUGH, REINMAX, GUMBEL_RAO = "straight_through", "reinmax", "gumbel_rao"
NVIL, MUPROP, REBAR, RELAX, DISARM = "nvil", "muprop", "rebar", "relax", "disarm"
ARMS, DOUBLE_CV, RODEO = "arms", "double_cv", "rodeo"
LOCAL_DISARM = "local_disarm"
REINFORCE, REINFORCE_LOO, VIMCO, EXACT = "reinforce", "reinforce_loo", "vimco", "exact"
RELAXED = (*SMOOTHINGS, CONCRETE)
SURROGATE_GRADIENTS = (STRAIGHT_THROUGH, REINMAX, GUMBEL_RAO)
SCORE_FUNCTION = (
    REINFORCE,
    REINFORCE_LOO,
    NVIL,
    VIMCO,
    MUPROP,
    REBAR,
    RELAX,
    DISARM,
    ARMS,
    DOUBLE_CV,
    RODEO,
    LOCAL_DISARM,
    EXACT,
)
ESTIMATORS = (*RELAXED, *SURROGATE_GRADIENTS, *SCORE_FUNCTION)
# zeta has a density, whose divergence from the prior's the marginal bound takes. That of Concrete,
# whose zeta decides its bit, is the larger one, not the smaller.
WITH_DENSITY = tuple(name for name in RELAXED if name != SPIKE_EXP)
# Their f is a function of one group's bits.
ONE_GROUP = (MUPROP, REBAR, RELAX, DISARM, ARMS, DOUBLE_CV, RODEO, LOCAL_DISARM, EXACT)
MULTI_SAMPLE = (REINFORCE_LOO, VIMCO, ARMS, DOUBLE_CV, RODEO)
BOUND_OF_SAMPLES = (VIMCO, LOCAL_DISARM)  # what they train is the bound of num_samples
LEARNED_BASELINE = (NVIL, MUPROP)
RELAXED_CONTROL = (REBAR, RELAX)
LEARNED_CONTROL = (*RELAXED_CONTROL, DOUBLE_CV, RODEO)
JOINT, MARGINAL = "joint", "marginal"
ELBO, IW = "elbo", "iw"
DIRECTED, BOLTZMANN = "directed", "rbm"
GENERAL = "boltzmann"  # a machine on any graph
MACHINES = (BOLTZMANN, GENERAL)
DVAE, DVAEPP, DVAES = "dvae", "dvaepp", "dvaes"
# What a method can train through.
SMOOTHINGS_OF = {
    DVAE: (SPIKE_EXP,),
    DVAEPP: OVERLAPPING,
    DVAES: (*OVERLAPPING, GAUSSIAN_INTEGRAL),
}
NONE, BATCH, LABELS = "none", "batch", "labels"
LINEAR, NONLINEAR = "linear", "nonlinear"
TANH, LEAKY_RELU = ACTIVATIONS = "tanh", "leaky_relu"
AS_STORED, DYNAMIC, ONCE, THRESHOLD = pixels.BINARIZATIONS
BITS, SIGNS = "bits", "signs"
ANALYTIC, SAMPLE = "analytic", "sample"
RUNNING, FIXED, LEARNED = "running", "fixed", "learned"
SHARED, VARIABLES = "shared", "variables"
MAX_EXACT_ROWS = 2**18  # states times images that `exact` decodes at once: a gigabyte of logits
