"""The names that flags of `cifar_vq` take."""

GS_SOFT, GS_HARD, VIMCO, VQ, VQ_EMA = _FIRST = ("gs_soft", "gs_hard", "vimco", "vq", "vq_ema")
QUANTIZERS = FSQ, LFQ, BSQ, ROTATION, SIMVQ, COSINE, RESIDUAL = (
    "fsq",
    "lfq",
    "bsq",
    "rotation",
    "simvq",
    "cosine",
    "residual",
)
ESTIMATORS = (*_FIRST, *QUANTIZERS)
PROBABILISTIC = (GS_SOFT, GS_HARD, VIMCO)  # with a posterior over the codes; the others pick one
DETERMINISTIC = (VQ, VQ_EMA, *QUANTIZERS)
SIGNS = (LFQ, BSQ)
GRIDS = (FSQ, *SIGNS)  # whose codes are a grid that nothing trains
NEAREST = (VQ, VQ_EMA, ROTATION, SIMVQ, COSINE)  # whose code is the nearest of the codebook
COMMITTED = tuple(name for name in DETERMINISTIC if name != FSQ)
STARTED = tuple(name for name in ESTIMATORS if name not in (*GRIDS, SIMVQ))  # see --codebook_init
NORMAL, DATA = "normal", "data"  # codebooks at first
ZEROS, HISTOGRAM = "zeros", "histogram"  # output biases at first
