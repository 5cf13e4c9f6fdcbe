"""Cases of `property_cases` for the quantizers of `vq`."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from property_cases import LOGIT, POINT, REAL, Case

from dvae import vq

LEVELS = (2, 5, 8)
CODEBOOK = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
CODES = np.array([4, 0, 2, 2])
STAGE_CODES = np.array([[4, 3], [0, 0], [2, -1], [1, 1]])
MASK = np.array([True, True, False, True])
# Whose arrays have no batch axis in front.
UNBATCHED = {
    *("cosine.quantize, codebook", "cosine.losses, codebook", "cosine.lookup"),
    *("simvq.codebook", "simvq.quantize, weights", "simvq.lookup", "simvq.losses, weights"),
    *("residual.quantize, codebooks", "residual.losses, codebooks", "residual.lookup"),
    *("residual.stage_inputs, codebooks", "residual.kmeans"),
}


def whole(x, scale: float = 1.0) -> jax.Array:
    """Integers from floats."""
    return jnp.asarray(scale * x, jnp.int32)


def digit_cases() -> Iterator[tuple[str, Case]]:
    discrete = dict(keeps_dtype=None, differentiable=False)
    yield from {
        "vq.pack_digits": Case(
            lambda x: vq.pack_digits(whole(x, 3), (2, 4, 3)), (POINT,), **discrete
        ),
        "vq.unpack_codes": Case(
            lambda x: vq.unpack_codes(whole(x, 30), (2, 4, 3)), (POINT,), **discrete
        ),
        "vq.mask_codes": Case(lambda x: vq.mask_codes(whole(x), x > 0), (REAL,), **discrete),
        "vq.digit_usage": Case(
            lambda x: vq.digit_usage(whole(x, 3), (2, 4, 3), mask=x[:, 0] > 0.5),
            (POINT,),
            **discrete,
        ),
        "vq.rotation_trick": Case(vq.rotation_trick, (REAL, REAL)),
    }.items()


def scalar_cases() -> Iterator[tuple[str, Case]]:
    """Of fsq, lfq and bsq; `lookup` makes floats of a dtype of its own."""
    fixed = dict(keeps_dtype=None, differentiable=False)
    fsq = vq.fsq
    yield from {
        "fsq.quantize": Case(lambda v: fsq.quantize(v, LEVELS), (REAL,)),
        "fsq.quantize_digits": Case(lambda v: fsq.quantize_digits(v, LEVELS), (REAL,)),
        "fsq.lookup": Case(lambda x: fsq.lookup(whole(x, 79), LEVELS), (POINT,), **fixed),
        "fsq.lookup_digits": Case(lambda x: fsq.lookup_digits(whole(x), LEVELS), (POINT,), **fixed),
        "fsq.codes_of_values": Case(
            lambda q: fsq.codes_of_values(q, LEVELS), ((-1.0, 1.0),), differentiable=False
        ),
    }.items()
    for name, module in (("lfq", vq.lfq), ("bsq", vq.bsq)):
        masked = lambda v, m=module: m.losses(v, inverse_temperature=2.0, mask=MASK)
        yield from {
            f"{name}.quantize": Case(module.quantize, (REAL,)),
            f"{name}.quantize_bits": Case(module.quantize_bits, (REAL,)),
            f"{name}.lookup": Case(lambda x, m=module: m.lookup(whole(x, 7), 3), (POINT,), **fixed),
            f"{name}.lookup_bits": Case(
                lambda x, m=module: m.lookup_bits(whole(x)), (POINT,), **fixed
            ),
            f"{name}.losses": Case(module.losses, (REAL,), keeps_dtype=False),
            f"{name}.losses, mask": Case(masked, (LOGIT,), keeps_dtype=False),
        }.items()


def codebook_cases() -> Iterator[tuple[str, Case]]:
    """Of cosine and simvq, once for the vectors and once for what is learned."""
    cosine, simvq = vq.cosine, vq.simvq
    of = lambda dtype: jnp.asarray(CODEBOOK, dtype)
    floating = lambda x: jnp.result_type(x) if jnp.issubdtype(x.dtype, jnp.floating) else None
    eye = lambda v: jnp.eye(3, dtype=floating(v))
    square = lambda w: w[:3]
    yield from {
        "cosine.unit": Case(cosine.unit, (REAL,)),
        "cosine.quantize": Case(lambda v: cosine.quantize(v, of(floating(v))), (REAL,)),
        "cosine.quantize, codebook": Case(cosine.quantize, (REAL, REAL)),
        "cosine.lookup": Case(lambda m: cosine.lookup(CODES % 4, m), (REAL,)),
        "cosine.losses": Case(
            lambda v: cosine.losses(v, CODES, of(floating(v)), mask=MASK),
            (REAL,),
            keeps_dtype=False,
        ),
        "cosine.losses, codebook": Case(
            lambda v, m: cosine.losses(v, CODES % 4, m), (REAL, REAL), keeps_dtype=False
        ),
        "simvq.init": Case(
            lambda x: simvq.init(jax.random.key(0), num_codes=4, dim=x.shape[-1]),
            (REAL,),
            keeps_dtype=None,
            differentiable=False,
        ),
        "simvq.codebook": Case(lambda m, w: simvq.codebook(m, square(w)), (REAL, REAL)),
        "simvq.quantize": Case(lambda v: simvq.quantize(v, of(floating(v)), eye(v)), (REAL,)),
        "simvq.quantize, weights": Case(
            lambda v, m, w: simvq.quantize(v, m, square(w)), (REAL, REAL, REAL)
        ),
        "simvq.lookup": Case(lambda m, w: simvq.lookup(CODES % 4, m, square(w)), (REAL, REAL)),
        "simvq.losses": Case(
            lambda v: simvq.losses(v, CODES, of(floating(v)), eye(v), mask=MASK),
            (REAL,),
            keeps_dtype=False,
        ),
        "simvq.losses, weights": Case(
            lambda v, m, w: simvq.losses(v, CODES % 4, m, square(w)),
            (REAL, REAL, REAL),
            keeps_dtype=False,
        ),
    }.items()


def residual_cases() -> Iterator[tuple[str, Case]]:
    residual = vq.residual
    stages = lambda v: jnp.asarray(
        np.stack([CODEBOOK, CODEBOOK / 3]),
        v.dtype if jnp.issubdtype(v.dtype, jnp.floating) else None,
    )
    yield from {
        "residual.quantize": Case(lambda v: residual.quantize(v, stages(v)), (REAL,)),
        "residual.quantize, depth": Case(
            lambda v: residual.quantize(v, stages(v), depth=np.array([1, 2, 1, 2])), (REAL,)
        ),
        "residual.quantize, codebooks": Case(
            lambda v, m: residual.quantize(v, (m, m[:3])), (REAL, REAL)
        ),
        "residual.lookup": Case(lambda m: residual.lookup(STAGE_CODES % 4, (m, m)), (REAL,)),
        "residual.stage_inputs": Case(
            lambda v: residual.stage_inputs(v, STAGE_CODES, stages(v)), (REAL,)
        ),
        "residual.stage_inputs, codebooks": Case(
            lambda v, m: residual.stage_inputs(v, STAGE_CODES % 4, (m, m)), (REAL, REAL)
        ),
        "residual.losses": Case(
            lambda v: residual.losses(v, STAGE_CODES, stages(v), mask=MASK),
            (REAL,),
            keeps_dtype=False,
        ),
        "residual.losses, codebooks": Case(
            lambda v, m: residual.losses(v, STAGE_CODES % 4, (m, m)),
            (REAL, REAL),
            keeps_dtype=False,
        ),
        "residual.draw_depth": Case(
            lambda x: residual.draw_depth(jax.random.key(0), 3, x.shape[:1]),
            (REAL,),
            keeps_dtype=None,
            differentiable=False,
        ),
        "residual.kmeans": Case(
            functools.partial(
                lambda x, **sizes: residual.kmeans(jax.random.key(0), x, **sizes),
                **dict(num_stages=2, num_codes=2, num_iters=2),
            ),
            (REAL,),
            keeps_dtype=None,
            differentiable=False,
        ),
    }.items()


CASES: dict[str, Case] = {
    **dict(digit_cases()),
    **dict(scalar_cases()),
    **dict(codebook_cases()),
    **dict(residual_cases()),
}
