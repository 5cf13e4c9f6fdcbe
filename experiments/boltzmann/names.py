"""The names that flags of programs with a Boltzmann prior take."""

from dvae import relax

PCD, TEMPERING, ANNEALING = SAMPLERS = ("pcd", "tempering", "annealing")
COMPLETE = "complete"  # the graph of a general machine, unless another one is named
EXPONENTIAL, SPIKE_EXP = "exponential", "spike_exp"
SMOOTHINGS = tuple(relax.SMOOTHINGS)
# Overlapping components have the common support that densities and smooth posteriors of the bits
# need; spike_exp's do not.
OVERLAPPING = tuple(name for name in SMOOTHINGS if name != SPIKE_EXP)
