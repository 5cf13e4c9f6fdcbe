"""Both modes of differentiation, to second order, of everything with a gradient of its own."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dvae.models import _convolution as convolution
from dvae.models import _products as products
from dvae.models import pixel_head

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def plain_conv(x, kernel, *, stride):
    pad = ((kernel.shape[0] - 1) // 2,) * 2
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (stride, stride), (pad, pad), dimension_numbers=DIMENSIONS
    )


def plain_conv_transpose(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        (1, 1),
        ((2, 2), (2, 2)),
        lhs_dilation=(2, 2),
        dimension_numbers=DIMENSIONS,
    )


# name -> function, plain function, shapes of x and of the kernel
CASES = {
    "1x1": (convolution.conv, lambda x, k: plain_conv(x, k, stride=1), (2, 3, 2, 4), (1, 1, 4, 3)),
    "3x3": (convolution.conv, lambda x, k: plain_conv(x, k, stride=1), (2, 3, 4, 2), (3, 3, 2, 3)),
    "4x4 strided": (
        lambda x, k: convolution.conv(x, k, stride=2),
        lambda x, k: plain_conv(x, k, stride=2),
        (2, 4, 6, 2),
        (4, 4, 2, 3),
    ),
    "transposed": (convolution.conv_transpose, plain_conv_transpose, (2, 3, 2, 2), (4, 4, 2, 3)),
    "scattered": (convolution.conv_transpose, plain_conv_transpose, (2, 2, 3, 5), (4, 4, 5, 1)),
    "product": (products.matmul, jnp.matmul, (2, 3, 4), (4, 3)),
}


def score(function):
    """A scalar that is nonlinear in both arguments."""
    return lambda x, kernel: jnp.sum(jnp.sin(function(jnp.tanh(x), kernel)))


def transforms(function):
    """Every way to differentiate, as functions of arguments and their tangents."""
    f = score(function)
    gradient = jax.grad(f, (0, 1))
    norm = lambda x, k: sum(jnp.sum(jnp.cos(g)) for g in gradient(x, k))
    directional = lambda x, k, dx, dk: jax.jvp(f, (x, k), (dx, dk))[1]
    pair = lambda a: jnp.stack([a, 0.5 * a])
    return {
        "value": lambda x, k, dx, dk: f(x, k),
        "grad": lambda x, k, dx, dk: gradient(x, k),
        "jvp": lambda x, k, dx, dk: jax.jvp(f, (x, k), (dx, dk)),
        "jvp of grad": lambda x, k, dx, dk: jax.jvp(gradient, (x, k), (dx, dk)),
        "grad of jvp": lambda x, k, dx, dk: jax.grad(directional, (0, 1, 2, 3))(x, k, dx, dk),
        "grad of grad": lambda x, k, dx, dk: jax.grad(norm, (0, 1))(x, k),
        "jvp of jvp": lambda x, k, dx, dk: jax.jvp(directional, (x, k, dx, dk), (dx, dk, x, k)),
        "vmap of grad": lambda x, k, dx, dk: jax.vmap(gradient)(pair(x), pair(k)),
        "vmap of grad by x": lambda x, k, dx, dk: jax.vmap(gradient, (0, None))(pair(x), k),
        "grad of vmap": lambda x, k, dx, dk: jax.grad(
            lambda x, k: jax.vmap(f, (None, 0))(x, pair(k)).sum(), (0, 1)
        )(x, k),
        "grad of vmap by x": lambda x, k, dx, dk: jax.grad(
            lambda x, k: jax.vmap(f, (0, None))(pair(x), k).sum(), (0, 1)
        )(x, k),
        "vmap of vmap of grad": lambda x, k, dx, dk: jax.vmap(
            jax.vmap(gradient, (None, 0)), (0, None)
        )(pair(x), pair(k)),
    }


def arguments(name, dtype=jnp.float64):
    shapes = CASES[name][2:]
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in (*shapes, *shapes)]


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("use_matmul", [True, False], ids=["matrix", "ordinary"])
@pytest.mark.parametrize("name", CASES)
def test_every_derivative_is_that_of_the_plain_operation(monkeypatch, name, use_matmul) -> None:
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    function, plain = CASES[name][:2]
    with jax.enable_x64(True):
        args = arguments(name)
        everything = lambda function: jax.jit(
            lambda *args: {kind: f(*args) for kind, f in transforms(function).items()}
        )(*args)
        found, expected = everything(function), everything(plain)
    for kind, values in expected.items():
        for a, b in zip(jax.tree.leaves(found[kind]), jax.tree.leaves(values), strict=True):
            assert a.dtype == b.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10, err_msg=kind)


@pytest.mark.thorough
def test_derivatives_without_jit() -> None:
    function, plain = CASES["3x3"][:2]
    args = arguments("3x3", jnp.float32)
    for kind in ("grad", "jvp", "jvp of grad"):
        found, expected = (transforms(f)[kind](*args) for f in (function, plain))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=kind)


@pytest.mark.thorough
@pytest.mark.many_cases
@pytest.mark.parametrize("use_matmul", [True, False], ids=["matrix", "ordinary"])
@pytest.mark.parametrize("name", ["3x3", "transposed"])
def test_derivatives_in_bfloat16(monkeypatch, name, use_matmul) -> None:
    """Those of float32 arguments, to the precision of bfloat16, in the dtypes of the arguments."""
    monkeypatch.setattr(convolution, "use_matmul", lambda: use_matmul)
    function, plain = CASES[name][:2]
    args = arguments(name, jnp.float32)
    halves = [a.astype(jnp.bfloat16) if i % 2 == 0 else a for i, a in enumerate(args)]
    for kind in ("grad", "jvp", "jvp of grad"):
        found = jax.jit(transforms(lambda x, k: function(x, k).astype(jnp.float32))[kind])(*halves)
        expected = jax.jit(transforms(plain)[kind])(*args)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert a.dtype == (jnp.bfloat16 if a.shape == args[0].shape else jnp.float32)
            scale = float(jnp.abs(b).max())
            np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.05 * scale, err_msg=kind)


def lowered(function, *args):
    """The program as it reaches XLA."""
    return jax.jit(function).lower(*args).as_text()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["1x1", "3x3", "4x4 strided", "transposed"])
def test_gradients_on_cpus_are_products_of_rows(monkeypatch, name, dtype) -> None:
    """Neither slow convolutions nor float32 cotangents times bfloat16 operands."""
    monkeypatch.setattr(convolution, "use_matmul", lambda: True)
    x, kernel, *_ = arguments(name, jnp.float32)
    gradient = jax.grad(lambda x, k: CASES[name][0](x, k).astype(jnp.float32).sum(), (0, 1))
    text = lowered(gradient, x.astype(dtype), kernel)
    assert "convolution" not in text
    product = re.compile(
        r"dot_general.*contracting_dims = (\[\d\] x \[\d\]).*: "
        r"\(tensor<([\dx]+)x(\w+)>, tensor<[\dx]+x(\w+)>\) -> tensor<[\dx]+x(\w+)>"
    )
    found = product.findall(text)
    num_products = 4 if name == "transposed" else 1
    # The gradient by the kernel contracts the rows of two matrices as they lie.
    by_kernel = [entry for entry in found if entry[0] == "[0] x [0]"]
    assert len(by_kernel) == num_products
    assert all(entry[1].count("x") == 1 for entry in by_kernel)
    spelled = {jnp.float32: "f32", jnp.bfloat16: "bf16"}[dtype]
    assert {entry[2:] for entry in found} == {(spelled, spelled, "f32")}


def test_transposed_convolutions_on_gpus_have_three_forms(monkeypatch) -> None:
    """A strided convolution, and its gradients as XLA recognizes them; in second order, too."""
    monkeypatch.setattr(convolution, "use_matmul", lambda: False)
    x, kernel, dx, dk = arguments("transposed", jnp.float32)
    window = re.compile(r"stablehlo.convolution.*window = \{(.*?)\}")

    def forms(function, *args):
        kinds = {"stride": "strided", "lhs_dilate": "by input", "rhs_dilate": "by kernel"}
        windows = window.findall(lowered(function, *args))
        return sorted(
            name for w in windows for mark, name in kinds.items() if f"{mark} = [2, 2]" in w
        ), windows

    gradient = jax.grad(score(convolution.conv_transpose), (0, 1))
    found, windows = forms(gradient, x, kernel)
    assert found == ["by input", "by kernel", "strided"]
    assert len(windows) == 3
    second = lambda *a: jax.jvp(gradient, a[:2], a[2:])
    found, windows = forms(second, x, kernel, dx, dk)
    assert set(found) == {"by input", "by kernel", "strided"}
    assert len(found) == len(windows)
    # The mirrored kernel is one operation: two in a row would be simplified away.
    assert "optimization_barrier" in lowered(convolution.conv_transpose, x, kernel)


@pytest.fixture(name="head")
def make_head():
    """Log-likelihoods of a small head as functions of x and parameters, fused and plain."""
    module = pixel_head.PixelHead(3)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (3, 4, 6, 3)), jnp.uint8)
    with jax.enable_x64(True):
        module = pixel_head.PixelHead(3, jnp.float64)
        x, kernel = rng.normal(size=(3, 2, 3, 3)), 0.3 * rng.normal(size=(4, 4, 3, 768))
        bias = rng.normal(size=(3, 256))
        args = [jnp.asarray(a) for a in (x, kernel, bias)]

    def fused(x, kernel, bias):
        params = {"params": {"kernel": kernel, "bias": bias}}
        total, _ = module.apply(params, x, images, method="total_log_likelihood")
        return jnp.tanh(total / 1e4)

    def plain(x, kernel, bias):
        logits = plain_conv_transpose(x, kernel).reshape(3, 4, 6, 3, 256) + bias[None, None, None]
        log_p = jax.nn.log_softmax(logits)
        return jnp.tanh(jnp.take_along_axis(log_p, images[..., None].astype(int), -1).sum() / 1e4)

    return fused, plain, args


@pytest.mark.thorough
def test_the_fused_likelihood_to_second_order(monkeypatch, head) -> None:
    monkeypatch.setattr(convolution, "use_matmul", lambda: True)
    monkeypatch.setattr(pixel_head, "_CHUNK_ROWS", 6)  # one image at a time
    fused, plain, args = head

    def everything(f):
        gradient = jax.grad(f, (0, 1, 2))
        norm = lambda *a: sum(jnp.sum(g * g) for g in gradient(*a))
        return lambda *a: {
            "grad": jax.value_and_grad(f, (0, 1, 2))(*a),
            "jvp": jax.jvp(f, a, a),
            "jvp of grad": jax.jvp(gradient, a, a),
            "grad of grad": jax.grad(norm, (0, 1, 2))(*a),
            "by x alone": jax.grad(f)(*a),
            "vmap of grad": jax.vmap(jax.grad(f), (0, None, None))(jnp.stack([a[0]] * 2), *a[1:]),
        }

    with jax.enable_x64(True):
        found, expected = (jax.jit(everything(f))(*args) for f in (fused, plain))
    for kind, values in expected.items():
        for a, b in zip(jax.tree.leaves(found[kind]), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=kind)


def test_the_fused_likelihood_makes_its_gradient_in_one_pass(monkeypatch, head) -> None:
    """One loop, and no array of all images' logits; for x alone no gradient by the kernel."""
    monkeypatch.setattr(convolution, "use_matmul", lambda: True)
    monkeypatch.setattr(pixel_head, "_CHUNK_ROWS", 6)
    fused, _, args = head
    with jax.enable_x64(True):
        text = lowered(jax.value_and_grad(fused, (0, 1, 2)), *args)
        of_x = lowered(jax.grad(fused), *args)
    assert text.count("stablehlo.while") == of_x.count("stablehlo.while") == 1
    assert not re.findall(r"tensor<(?:3x2x3x768|18x768|18x3x256)xf64>", text)
    by_kernel = "contracting_dims = [0] x [0]"
    assert by_kernel in text
    assert by_kernel not in of_x
