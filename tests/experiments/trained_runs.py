"""Whether the models that a run leaves behind give the numbers of its summary."""

import functools

import jax
import numpy as np

import dvae
from experiments.common import evaluation


def check(workdir, summary, test, labels=None):
    """Recomputes what the summary says of test images, from model/ alone."""
    config, seeds = summary["config"], summary["seeds"]
    images = evaluation.spread(test, config["num_test_images"])
    labels = None if labels is None else evaluation.spread(labels, config["num_test_images"])
    given = lambda i: {} if labels is None else {"labels": labels[i : i + size]}
    size = min(config["eval_batch_size"], len(images))
    assert len(images) % size == 0, "padding is not repeated here"
    starts = range(0, len(images), size)
    of_seed = lambda value, i: value[i] if len(seeds) > 1 else value
    for index, seed in enumerate(seeds):
        model = dvae.load(workdir, seed=seed)
        assert model.info["dvae_version"] == dvae.__version__
        key, record = jax.random.fold_in(jax.random.key(seed), 2), summary["test"]
        if model.kind == "cifar_vq":
            bits = -np.mean(model.elbo(key, images)) / images[0].size / np.log(2)
            np.testing.assert_allclose(bits, of_seed(record["bits_per_dim"], index), atol=1e-4)
            continue
        keys = [jax.random.fold_in(key, i) for i in range(len(starts))]
        walk = lambda f, keys=keys: np.concatenate(
            [f(k, images[i : i + size], **given(i)) for k, i in zip(keys, starts, strict=True)]
        )
        elbo = walk(model.elbo).mean()
        np.testing.assert_allclose(elbo, of_seed(record["elbo_nats"], index), atol=1e-4)
        if "nll_nats" not in record:
            continue
        estimate = functools.partial(model.log_likelihood, num_samples=config["test_samples"])
        log_p = walk(lambda k, x, f=estimate, **given: f(jax.random.clone(k), x, **given))
        np.testing.assert_allclose(-log_p.mean(), of_seed(record["nll_nats"], index), atol=1e-4)
        assert model.info["metrics"]["nll_nats"] == of_seed(record["nll_nats"], index)
        if "log_z" in summary:
            np.testing.assert_allclose(
                model.info["log_z"]["nats"], of_seed(summary["log_z"]["nats"], index), atol=1e-4
            )
            assert model.info["log_z"]["nats"] == np.float64(model.params["log_z"]).tolist()
