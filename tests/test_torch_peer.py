"""The PyTorch model that ours is timed against is ours."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dvae._numerics import standard_gumbel
from dvae.models import joint
from experiments.cifar_vq import task
from experiments.cifar_vq.config import Config
from experiments.cifar_vq.presets import PRESETS
from experiments.joint_vae import config as joint_config
from experiments.joint_vae import task as joint_task

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


@pytest.mark.thorough
def test_joint_vae_has_the_same_loss_and_gradients_for_the_same_noise(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import joint_vae_torch

    config = joint_config.Config(**joint_config.PRESETS["mnist_published"])
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), np.uint8)
    module = joint.JointVAE(config.model_config(images.shape[1:]))
    params, _ = jax.jit(joint_task.init_fn(module))(jax.random.key(0), images)
    model = joint_vae_torch.JointVAE()
    sizes = [x.size for x in jax.tree.leaves(params)]
    assert sum(sizes) == sum(p.numel() for p in model.parameters())
    assert len(sizes) == len(list(model.parameters()))
    joint_vae_torch.load(model, params)

    key, step = jax.random.key(1), 1_000
    loss = lambda p: joint_task.loss_fn(config, module)(p, (), images, key, np.int32(step))[0]
    expected, gradients = jax.jit(jax.value_and_grad(loss))(params)
    key_h, key_c = jax.random.split(jax.random.key(1), 2)
    draws = jax.random.normal(key_h, (4, 10)), standard_gumbel(key_c, (4, 10))
    found = model.loss(
        torch.from_numpy(np.float32(images) / 255).movedim(-1, 1),
        step,
        tuple(torch.from_numpy(np.array(x)) for x in draws),
    )
    np.testing.assert_allclose(found.item() / images[0].size, expected, rtol=1e-5)
    (found / images[0].size).backward()
    ours = joint_vae_torch.JointVAE()
    joint_vae_torch.load(ours, gradients)
    for (name, p), q in zip(model.named_parameters(), ours.parameters(), strict=True):
        # A gradient by half of what is loaded, the logarithm of the variance, is half of ours.
        q = q / 4 if name.startswith("log_variance") else q
        scale = q.abs().max().item()
        np.testing.assert_allclose(p.grad, q.detach(), atol=1e-4 * scale, err_msg=name)
