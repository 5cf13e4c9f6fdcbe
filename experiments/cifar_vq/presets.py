"""The presets of `cifar_vq`."""

from typing import Any

from experiments.cifar_vq import names
from experiments.common import schedules

_SMALL: dict[str, Any] = dict(
    codebook_size=64,
    num_latents=4,
    features=32,
    crop=16,
    batch_size=32,
    learning_rate=1e-3,
    kl_warmup_steps=500,
    eval_interval=250,
    checkpoint_interval=250,
)
# Beside the paper's training. In short pairs the average and a warm-up helped. The others act on
# what long runs lose: the rate's noise at the end, and the distance between training and test.
_BEST: dict[str, Any] = dict(
    learning_rate_schedule=schedules.COSINE,
    decay_share=0.6,
    flip=True,
    ema_params=0.998,
    test_samples=100,
)
PRESETS: dict[str, dict[str, Any]] = {
    "paper": dict(dtype="bfloat16", steps_per_call=10),
    "best": dict(
        dtype="bfloat16", steps_per_call=10, num_steps=200_000, kl_warmup_steps=5_000, **_BEST
    ),
    "small_best": dict(_SMALL, num_steps=5_000, **{**_BEST, "test_samples": 10}),
    "small": dict(_SMALL, num_steps=5_000),
    "demo": dict(
        _SMALL,
        estimator=names.VQ_EMA,
        dataset="patches",
        num_latents=8,
        kl_warmup_steps=1_500,
        num_steps=2_250,
        num_eval_images=200,
    ),
    "smoke": dict(
        dataset="patches",
        codebook_size=8,
        num_latents=2,
        code_dim=8,
        features=8,
        num_residual_blocks=1,
        crop=16,
        batch_size=8,
        num_steps=4,
        log_interval=2,
        eval_interval=2,
        num_eval_images=16,
        eval_batch_size=16,
        checkpoint_interval=2,
    ),
}
