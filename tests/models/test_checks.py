"""Arguments that a model computed something wrong from, or failed on deep inside, are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.models import _convolution as convolution
from dvae.models import _products as products
from dvae.models import checks, dvaepp, joint, layers, mlp, se_resnet, vq_conv
from dvae.models.multiscale import MultiscaleConfig, MultiscaleDecoder
from dvae.models.pixel_head import PixelHead

VQ = vq_conv.VQConv(vq_conv.VQConvConfig(5, 2, 3, features=4, num_residual_blocks=0))
CODEBOOK = np.ones((2, 5, 3), np.float32)
U8 = np.zeros((2, 8, 8, 3), np.uint8)
VECTORS = np.zeros((2, 2, 2, 2, 3), np.float32)
MLP = mlp.BinaryVAE(mlp.BinaryVAEConfig((3, 2), (4,), num_pixels=6))
FACTORIAL = mlp.BinaryVAE(mlp.BinaryVAEConfig((3,), (), num_pixels=6, directed=False))
X6, Z3, Z2 = (np.zeros((4, n), np.float32) for n in (6, 3, 2))
JOINT = joint.JointVAE(joint.JointConfig(8, 1, 2, (3, 2), features=2, hidden_units=4))
UNIT = np.full((2, 8, 8, 1), 0.5, np.float32)
H, C3, C2 = (np.zeros((2, n), np.float32) for n in (2, 3, 2))


def network(num_mixtures):
    decoder = MultiscaleConfig(8, 1, num_mixtures=num_mixtures, features=1, num_blocks=0)
    return dvaepp.DVAEPP(
        dvaepp.DVAEPPConfig(decoder, global_sizes=(3, 2), local_groups=1, local_size=2, hidden=(4,))
    )


BINARY, LEVELS = network(0), network(2)
BITS = np.zeros((2, 8, 8, 1), np.uint8)
FEATURES = dvaepp.Features(np.zeros((2, 4), np.float32), np.zeros((2, 2, 2, 4), np.float32))
CONTEXT = np.zeros((2, 2, 2, 4), np.float32)
G3, G2 = (np.zeros((2, n), np.float32) for n in (3, 2))
HEAD = PixelHead(3)
HALF = np.zeros((2, 4, 4, 3), np.float32)
FIXED = lambda key, q, p: (p[..., :2], p.sum((1, 2, 3)))


def call(module, method, *args):
    """Initializes a module by one of its methods: the arguments alone decide what happens."""
    return lambda: jax.eval_shape(
        lambda: module.init(jax.random.key(0), *args, method=method)  # NumPy arrays stay known
    )


GOOD = {
    "vq": call(VQ, "encode", U8),
    "vq, larger": call(VQ, "encode", np.zeros((1, 64, 12, 3), np.uint8)),
    "vq, logits": call(VQ, "posterior_logits", VECTORS, CODEBOOK),
    "vq, likelihood": call(VQ, "log_likelihood", VECTORS, U8),
    "mlp, samples": call(MLP, "posterior_logits", X6, [np.zeros((5, 4, 3), np.float32)]),
    "mlp, pixels": call(MLP, "pixel_logits", [Z3, Z2]),
    "joint": call(JOINT, "encode", UNIT),
    "joint, decoder": call(JOINT, "pixel_logits", H, [C3, C2]),
    "bits": call(BINARY, "encode", BITS),
    "bits as floats": call(BINARY, "encode", BITS.astype(np.float32)),
    "bits as booleans": call(BINARY, "encode", BITS.astype(bool)),
    "levels": call(LEVELS, "encode", BITS + np.uint8(200)),
    "globals": call(BINARY, "global_posterior", FEATURES, [G3]),
    "expand": call(BINARY, "expand", [G3, G2]),
    "likelihood": call(BINARY, "log_likelihood", CONTEXT, BITS),
    "head": call(HEAD, "log_likelihood", HALF, U8),
}
BAD = {
    # What was computed from without a word.
    "floats for levels": (
        call(VQ, "encode", U8 / 255),
        "uint8 levels.*got float64 .*255 \\* images",
    ),
    "bytes for floats": (call(JOINT, "encode", UNIT.astype(np.uint8)), "in \\[0, 1\\], got uint8"),
    "levels for floats": (
        call(JOINT, "encode", UNIT * 255),
        "with a pixel of 127.5; levels become",
    ),
    "not a number": (
        call(JOINT, "encode", UNIT * [[[[1]]], [[[np.nan]]]]),
        r"with a pixel of nan; x\[1\] is not finite: repair",
    ),
    "below 0 for floats": (
        call(JOINT, "encode", 4 * UNIT - 3),
        r"pixel of -1\.0; scale them to \[0, 1\] first: \(x \+ 1\) / 2 for \[-1, 1\]",
    ),
    "below 0 for levels": (call(VQ, "encode", U8 - 1.0), r"float64 .*; scale them .* \+ 1\) / 2"),
    "below 0 for bits": (call(BINARY, "encode", 2.0 * BITS - 1), r"pixel of -1\.0; scale them"),
    "not a number for levels": (call(VQ, "encode", U8 * np.nan), r"images\[0\] is not finite"),
    "large floats for levels": (call(VQ, "encode", U8 + 9.0), r"images\.astype\(np\.uint8\)"),
    "levels for bits": (call(BINARY, "encode", BITS + np.uint8(255)), "pixel of 255; threshold"),
    "grey for bits": (call(BINARY, "log_likelihood", CONTEXT, UNIT), "pixel of 0.5; threshold"),
    "floats for levels of mixtures": (
        call(LEVELS, "encode", UNIT),
        "uint8 levels 0..255, got float",
    ),
    "bytes for latents": (call(MLP, "pixel_logits", [Z3.astype(np.uint8), Z2]), "must be floats"),
    "groups joined": (call(MLP, "pixel_logits", [np.zeros((4, 5), np.float32)]), "all 2 groups"),
    "groups swapped": (call(MLP, "pixel_logits", [Z2, Z3]), r"groups\[0\] must be.*\[..., 3\]"),
    "classes swapped": (call(JOINT, "pixel_logits", H, [C2, C3]), r"c\[0\] must be.*\[2, 3\]"),
    "layers swapped": (call(BINARY, "expand", [G2, G3]), r"values\[0\] must be"),
    "one context for all": (
        call(BINARY, "log_likelihood", CONTEXT[:1], BITS),
        r"shape \[1, 8, 8, 1",
    ),
    "fewer pixels": (
        call(MLP, "posterior_logits", X6[:, :5], []),
        r"shape \[..., 6\], got float32",
    ),
    "other size": (call(BINARY, "encode", np.zeros((2, 12, 12, 1), np.uint8)), r"\[B, 8, 8, 1\]"),
    # What failed far from its cause.
    "levels as int32": (call(VQ, "encode", U8.astype(np.int32)), r"images\.astype\(np\.uint8\)"),
    "channels first": (
        call(VQ, "encode", U8.transpose(0, 3, 1, 2)),
        r"channels first: images\.transpose\(0, 2, 3, 1\)",
    ),
    "one channel first": (
        call(BINARY, "encode", BITS.transpose(0, 3, 1, 2)),
        r"channels first: images\.transpose\(0, 2, 3, 1\)",
    ),
    "one image": (call(VQ, "encode", U8[0]), r"got uint8 \(8, 8, 3\).*images\[None\]"),
    "one image of one channel": (call(BINARY, "encode", BITS[0]), r"(?m): images\[None\]$"),
    "one channel without an axis": (
        call(BINARY, "encode", BITS[..., 0]),
        r"(?m)images\[\.{3}, None\]$",
    ),
    "one image without a channel": (
        call(BINARY, "encode", BITS[0, ..., 0]),
        r"(?m)images\[None, \.{3}, None\]$",
    ),
    "no remedy": (call(BINARY, "encode", BITS[0, :5, :, 0]), r"(?m)got uint8 \(5, 8\)$"),
    "no remedy by an axis": (
        call(BINARY, "encode", BITS[:, :5, :, 0]),
        r"(?m)got uint8 \(2, 5, 8\)$",
    ),
    "grey images": (call(VQ, "encode", U8[..., :1]), r"shape \[B, H, W, 3\], got uint8"),
    "odd size": (call(VQ, "encode", U8[:, :, :6]), "multiples of 4.*crop or pad"),
    "codes for vectors": (
        call(VQ, "log_likelihood", np.zeros((2, 2, 2, 2), np.int32), U8),
        "floats",
    ),
    "wider codes": (call(VQ, "posterior_logits", VECTORS, CODEBOOK[:, :4]), r"\[2, 5, 3\]"),
    "other images": (call(VQ, "log_likelihood", VECTORS, U8[:1]), r"shape \[2, 8, 8, 3\]"),
    "features": (call(HEAD, "log_likelihood", HALF[..., :2], U8), r"\[B, H/2, W/2, 3\]"),
    "features of a mean": (call(HEAD, "mean", HALF[..., :2]), r"\[B, H/2, W/2, 3\]"),
    "floats in the head": (call(HEAD, "total_log_likelihood", HALF, U8 / 255), "uint8 levels"),
    "a group too many": (call(MLP, "posterior_logits", X6, [Z3, Z2]), "at most 1 groups"),
    "a prior too many": (call(MLP, "prior_logits", [Z3, Z2]), "at most 1 groups"),
    "no directed prior": (call(FACTORIAL, "prior_logits", []), "directed=False"),
    "missing class": (call(JOINT, "pixel_logits", H, [C3]), "each of 2 variables, got 1"),
    "other batch": (call(JOINT, "pixel_logits", H, [C3[:1], C2]), r"c\[0\] must be"),
    "missing layer": (call(BINARY, "expand", [G3]), "all 2 layers"),
    "a layer too many": (call(BINARY, "global_posterior", FEATURES, [G3, G2]), "fewer than the 2"),
    "other features": (
        call(BINARY, "global_posterior", FEATURES._replace(top=H), []),
        r"features.top must be floats, shape \[B, 4\]",
    ),
    "other context": (
        call(BINARY, "local_groups", jax.random.key(0), CONTEXT[:, :1], FEATURES, FIXED),
        "context must be floats",
    ),
    "context of another batch": (
        call(BINARY, "local_groups", jax.random.key(0), CONTEXT[:1], FEATURES, FIXED),
        "features.local must be floats",
    ),
    "context between scales": (
        call(
            MultiscaleDecoder(MultiscaleConfig(8, num_scales=2, features=1, num_blocks=0)),
            "generate",
            jax.random.key(0),
            np.zeros((1, 3, 3, 2), np.float32),
        ),
        "doubles or halves to the coarsest scale's 4",
    ),
    "integers in a network": (call(mlp.Mlp((), 2), None, np.zeros((2, 3), int)), "must be floats"),
    "integers in a block": (call(se_resnet.SEResidualBlock(2), None, U8), "must be floats"),
    "a vector in a block": (call(se_resnet.Down(2, 0), None, H), r"\[B, H, W, I\]"),
    "too small to double": (
        call(se_resnet.Up(2, 0, (20, 20)), None, HALF),
        "half of the sides 20x20",
    ),
    "integers in a convolution": (call(layers.Conv(2, 3), None, U8), "must be floats"),
    "a transposed one": (call(layers.ConvTranspose(2), None, U8), "must be floats"),
    "a list": (call(MLP, "posterior_logits", [[0.0] * 6], []), "a list; use np.asarray"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_documented_is_taken(name) -> None:
    GOOD[name]()


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_is_refused(name) -> None:
    function, message = BAD[name]
    error = TypeError if "asarray" in message else ValueError
    with pytest.raises(error, match=message):
        function()


def test_values_are_checked_of_known_arrays_alone() -> None:
    """A compiled step neither waits for its images nor computes with them twice."""
    check = lambda x: checks.check_images(x, kind=checks.UNIT, shape=("B", "D"))
    with pytest.raises(ValueError, match=r"a pixel of 2\.0"):
        check(np.array([[0.0, 2.0]]))
    check(jnp.array([[0.0, 2.0]]))
    with pytest.raises(ValueError, match="of another dtype are cast"):
        checks.check_images(np.float32([[0, 2]]), kind=checks.LEVELS, shape=("B", "D"))
    jaxpr = jax.make_jaxpr(lambda x: (check(x), x)[1])(np.array([[0.0, 2.0]]))
    assert not jaxpr.eqns


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda: vq_conv.lookup(np.full((3, 2), 5), CODEBOOK),
            "0 .. 4, the codes of this.* 5 to 5",
        ),
        (lambda: vq_conv.lookup(np.full((3, 2), -1), CODEBOOK), "got -1 to -1"),
        (lambda: vq_conv.lookup(np.zeros((3, 3), int), CODEBOOK), r"shape \[..., 2\], got int64"),
        (lambda: vq_conv.lookup(np.zeros((3, 2)), CODEBOOK), "must be integers in 0 .. 4"),
        (lambda: vq_conv.lookup(np.zeros((3, 2), int), CODEBOOK[0]), r"\[n, C, D\]"),
        (lambda: vq_conv.nearest_codes(VECTORS[..., :2], CODEBOOK), r"\[..., 2, 3\]"),
        (lambda: vq_conv.distances(VECTORS[..., :1, :], CODEBOOK), r"\[..., 2, 3\]"),
        (lambda: vq_conv.average(np.ones((3, 2, 4)), CODEBOOK), r"weights must be.*\[..., 2, 5\]"),
        (lambda: vq_conv.calibrated_log_scale(VECTORS, CODEBOOK, 0.0), "must be positive"),
        (lambda: joint.log_likelihood(UNIT[:1], UNIT), r"x must be.*shape \[2, 8, 8, 1\]"),
        (lambda: joint.log_likelihood(BITS, UNIT), "divided|levels become floats"),
        (lambda: products.matmul(X6, X6), r"x \[..., I\] and w \[I, O\]"),
        (lambda: convolution.conv(HALF, np.ones((3, 3, 2, 1), np.float32)), r"\[B, H, W, 2\]"),
        (lambda: convolution.conv(HALF, np.ones((3, 1, 3, 1), np.float32)), r"\[K, K, I, O\]"),
        (lambda: convolution.conv_transpose(HALF, np.ones((3, 3, 3, 1), np.float32)), "4x4 kernel"),
        (lambda: convolution.conv_transpose_pieces(HALF, np.ones((4, 4, 2, 1), "f4")), "H, W, 2"),
        (lambda: convolution.split_like_pieces(U8[:, :7]), r"\[B, 2H, 2W, ...\], got shape \(2, 7"),
    ],
)
def test_functions_refuse_what_does_not_fit(function, message) -> None:
    with pytest.raises(ValueError, match=message):
        function()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: vq_conv.VQConvConfig(codebook_size=0), "codebook_size must be at least 1, got 0"),
        (lambda: vq_conv.VQConvConfig(num_latents=0), "num_latents must be at least 1"),
        (lambda: vq_conv.VQConvConfig(num_residual_blocks=-1), "at least 0"),
        (lambda: vq_conv.VQConvConfig(dtype=jnp.int32), "dtype one of floats"),
        (lambda: mlp.BinaryVAEConfig(num_pixels=0), "num_pixels must be at least 1"),
        (lambda: mlp.BinaryVAEConfig(hidden=(3, 0)), "hidden must be at least 1"),
        (lambda: joint.JointConfig(channels=0), "channels must be at least 1"),
        (lambda: MultiscaleConfig(features=0), "features must be at least 1"),
        (lambda: MultiscaleConfig(num_mixtures=-1), "num_mixtures and num_blocks"),
        (lambda: dvaepp.DVAEPPConfig(MultiscaleConfig(), local_size=0), "local_size must be"),
    ],
)
def test_sizes_that_make_no_model(config, message) -> None:
    with pytest.raises(ValueError, match=message):
        config()


@pytest.mark.thorough
def test_a_single_code_has_the_scale_one() -> None:
    """Its distances do not spread, and 1 / 0 would make the logits NaN."""
    vectors = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    found = vq_conv.calibrated_log_scale(vectors, CODEBOOK[:, :1], 3.0)
    np.testing.assert_array_equal(found, 0)
    # Likewise where all codes are one, as k-means of equal images makes them, but for rounding.
    np.testing.assert_array_equal(vq_conv.calibrated_log_scale(vectors, CODEBOOK, 3.0), 0)
    # A single code that every vector equals, far from 0, and one in half precision.
    far = np.full((4, 2, 3), 1e3, np.float32)
    np.testing.assert_array_equal(vq_conv.calibrated_log_scale(far, far[0][:, None], 3.0), 0)
    half = vectors.astype(jnp.bfloat16)
    found = vq_conv.calibrated_log_scale(half, half[0][:, None], 3.0)
    assert found.shape == (2,)
    np.testing.assert_array_equal(found, 0)
