"""The names that flags of `cifar_vq` take."""

GS_SOFT, GS_HARD, VIMCO, VQ, VQ_EMA = ESTIMATORS = ("gs_soft", "gs_hard", "vimco", "vq", "vq_ema")
PROBABILISTIC = (GS_SOFT, GS_HARD, VIMCO)  # with a posterior over the codes; the others pick one
DETERMINISTIC = (VQ, VQ_EMA)
NORMAL, DATA = "normal", "data"  # codebooks at first
ZEROS, HISTOGRAM = "zeros", "histogram"  # output biases at first
