"""The PyTorch model that ours is timed against is ours."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dvae._numerics import standard_gumbel
from experiments.cifar_vq import task
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS

torch = pytest.importorskip("torch")
BENCHMARKS = str(Path(__file__).parent.parent / "benchmarks")


@pytest.mark.thorough
@pytest.mark.parametrize("estimator", ["gs_soft", "vq"])
def test_the_same_loss_and_gradients_for_the_same_noise(monkeypatch, estimator):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _timing
    import cifar_vq_torch

    config = Config(**{**PRESETS["smoke"], "estimator": estimator})
    images = _timing.noise((16, 16, 3), 256, 64)
    init = task.init_fn(config, task.log_pixel_histogram(images.train), images.num_train)
    params, model_state = jax.jit(init)(jax.random.key(0), images.train)
    model = cifar_vq_torch.Model(config)
    sizes = [x.size for x in jax.tree.leaves(params)]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    assert len(sizes) == len(list(model.parameters()))
    cifar_vq_torch.load(model, params)

    batch, key = images.train[:4], jax.random.key(1)
    loss = lambda p: task.loss_fn(config)(p, model_state, batch, key, np.int32(0))[0]
    expected, gradients = jax.jit(jax.value_and_grad(loss))(params)
    key_latent, _ = jax.random.split(jax.random.key(1))
    shape = (4, 4, 4, config.num_latents, config.codebook_size)
    gumbels = np.asarray(standard_gumbel(key_latent, shape)).reshape(-1, *shape[3:])
    found = model.loss(
        torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(gumbels.swapaxes(0, 1).copy()),
    )
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
    found.backward()
    ours = cifar_vq_torch.Model(config)
    cifar_vq_torch.load(ours, gradients)
    for (name, p), q in zip(model.named_parameters(), ours.parameters(), strict=True):
        scale = q.abs().max().item()
        if p.grad is None:  # the scale of logits, where the nearest code is taken
            assert (estimator, name, scale) == ("vq", "log_scale", 0.0)
            continue
        np.testing.assert_allclose(p.grad, q.detach(), atol=1e-4 * scale, err_msg=name)
