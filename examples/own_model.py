"""A model of one's own: a user's encoder and decoder, with the library's gradients, prior and loop.

    python examples/own_model.py linen relaxation
    python examples/own_model.py nnx estimator
    python examples/own_model.py nnx estimator 500 runs/own  # steps, and the folder of the run

Networks are pure functions to the library, whoever makes them: (parameters, input) -> output.
"""

import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from dvae import data, estimators, rbm, relax
from dvae.data import batches
from dvae.distributions import bernoulli
from dvae.models import boltzmann
from dvae.train import loop, sharding, state

PIXELS, BITS, HIDDEN, BATCH_SIZE, BETA = 64, 32, 128, 64, 8.0


class LinenNetwork(nn.Module):
    """One hidden layer in Linen."""

    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(nn.relu(nn.Dense(HIDDEN)(x)))


class NNXNetwork(nnx.Module):
    """One hidden layer in NNX."""

    def __init__(self, inputs, outputs, rngs):
        self.hidden = nnx.Linear(inputs, HIDDEN, rngs=rngs)
        self.output = nnx.Linear(HIDDEN, outputs, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.relu(self.hidden(x)))


def make_linen(key, inputs, outputs):
    """Returns parameters and the function that applies them."""
    network = LinenNetwork(outputs)
    return network.init(key, jnp.zeros((1, inputs))), network.apply


def make_nnx(key, inputs, outputs):
    """Returns the same of an object: `split` takes it apart, `merge` puts it together."""
    graph, params = nnx.split(NNXNetwork(inputs, outputs, nnx.Rngs(key)))
    return params, lambda params, x: nnx.merge(graph, params)(x)


def main(framework="linen", method="relaxation", num_steps=3_000, workdir=None):
    """Trains the model; returns the ELBO of test images, nats, before and after."""
    num_steps = int(num_steps)  # words of a command line are text
    make = {"linen": make_linen, "nnx": make_nnx}[framework]
    key_encoder, key_decoder, key_init, key_train = jax.random.split(jax.random.key(0), 4)
    encoder, encode = make(key_encoder, PIXELS, BITS)
    decoder, decode = make(key_decoder, BITS, PIXELS)
    images = data.load("digits")  # 8 x 8; training images are gray, to be sampled
    train, test = (x.reshape(len(x), PIXELS) for x in (images.train, images.test))
    mean = jnp.asarray(train.mean(0, dtype="float32")) / 255
    half = jnp.zeros(BITS // 2)
    prior = rbm.RBM(half, half, jnp.zeros((BITS // 2, BITS // 2)))

    def log_likelihood(params, x, z):
        logits = decode(params["decoder"], 2 * z - 1)
        return bernoulli.log_prob(jnp.broadcast_to(x, logits.shape), logits).sum(-1)

    def init(key, rows):
        params = {"encoder": encoder, "decoder": decoder, "prior": prior}
        return params, rbm.gibbs.init(key, prior, 100)  # chains: the prior's negative phase

    def loss(params, chains, x, key, step):
        key_chains, key_bits = jax.random.split(key)
        machine, logits = params["prior"], encode(params["encoder"], x - mean[None])
        chains, _ = rbm.gibbs.step(key_chains, jax.lax.stop_gradient(machine), chains, num_sweeps=5)
        # The value of log Z moves nothing, its gradient is that of the chains.
        log_z = rbm.log_z_with_gradient(machine, 0.0, chains.z1, chains.z2)
        if method == "relaxation":  # smooth bits, and a KL in closed form
            zeta = relax.exponential.sample(key_bits, logits, BETA)
            ratio = relax.exponential.log_ratio(zeta, BETA)
            kl = rbm.kl.hierarchical(machine, [logits], [ratio], log_z)
            objective = log_likelihood(params, x, zeta) - kl
        else:  # bits, and a score-function estimate of the gradient
            f = lambda z: log_likelihood(params, x, z) + boltzmann.log_prob(machine, log_z, [z])
            estimate = estimators.reinforce_loo(key_bits, f, logits, num_samples=4)
            objective = estimate.surrogate + bernoulli.entropy(logits).sum(-1)
        return -objective.mean(), (chains, {})

    @jax.jit
    def elbo(params):
        key_bits, key_log_z = jax.random.split(jax.random.key(1))
        x, machine = jnp.asarray(test, jnp.float32), params["prior"]
        logits, log_z = encode(params["encoder"], x - mean[None]), rbm.ais.log_z(key_log_z, machine)
        z = bernoulli.sample(key_bits, logits)
        log_joint = log_likelihood(params, x, z) + boltzmann.log_prob(machine, log_z.value, [z])
        return (log_joint + bernoulli.entropy(logits).sum(-1)).mean()

    def draw(key, rows, step):
        key_order, key_pixels = jax.random.split(key)
        rows = batches.draw(key_order, rows, step, batch_size=BATCH_SIZE)
        return batches.binarize(jax.random.fold_in(key_pixels, step), rows).astype(jnp.float32)

    optimizer = optax.adam(2e-3)
    task = loop.Task(
        init=lambda key, rows: state.init(init, optimizer, key, rows),
        step=state.make_step(loss, draw, optimizer),
        evaluate=lambda now: {"elbo": elbo(now.params)},
        data=train,
        key_init=key_init,
        key_train=key_train,
        images_per_step=BATCH_SIZE,
    )
    folder = Path(workdir or tempfile.mkdtemp())
    lengths = loop.LoopConfig(num_steps, log_interval=max(1, num_steps // 5))
    result = loop.fit(task, lengths, folder, sharding.make_mesh(1))
    before = elbo({"encoder": encoder, "decoder": decoder, "prior": prior})
    return float(before), float(elbo(result.state.params))


if __name__ == "__main__":
    before, after = main(*sys.argv[1:])
    print(f"ELBO of test images: {before:.2f} nats before, {after:.2f} after")
