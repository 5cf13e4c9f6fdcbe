import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dvae.data import batches


def epochs(key, num_examples, batch_size, count):
    """All indices of the first epochs, [count, steps, batch_size]."""
    steps = num_examples // batch_size

    @jax.jit
    @jax.vmap
    def take(step):
        return batches.epoch_indices(key, step, num_examples=num_examples, batch_size=batch_size)

    return np.asarray(take(jnp.arange(count * steps))).reshape(count, steps, batch_size)


@pytest.mark.many_cases
@pytest.mark.parametrize(
    ("num_examples", "batch_size"), [(1, 1), (2, 1), (7, 7), (64, 8), (4097, 17)]
)
def test_an_epoch_sees_every_example_once(num_examples, batch_size):
    indices = epochs(jax.random.key(0), num_examples, batch_size, 3)
    assert indices.dtype == np.int32
    for epoch in indices:
        np.testing.assert_array_equal(np.sort(epoch.ravel()), np.arange(num_examples))


def test_a_remainder_is_dropped_without_repeats_and_changes():
    left_out = []
    for epoch in epochs(jax.random.key(1), 45_000, 64, 2):
        assert epoch.min() >= 0
        assert epoch.max() < 45_000
        seen = np.unique(epoch)
        assert len(seen) == 703 * 64
        left_out.append(np.setdiff1d(np.arange(45_000), seen).tolist())
    assert left_out[0] != left_out[1]


def test_epochs_and_keys_have_their_own_order():
    def order(key, number):
        def take(step):
            return batches.epoch_indices(key, step, num_examples=1000, batch_size=10)

        return jax.vmap(take)(number * 100 + jnp.arange(100)).ravel()

    keys = jax.random.wrap_key_data(jnp.array([[0, 0], [0, 0], [0, 0], [0, 1]], jnp.uint32))
    orders = np.asarray(jax.jit(jax.vmap(order))(keys, jnp.array([0, 1, 2, 0])))
    for i in range(4):
        for j in range(i):
            # Two independent orders agree in one place on average (Poisson: 12 is 1e-10).
            assert np.sum(orders[i] == orders[j]) < 12


@pytest.mark.many_cases
@pytest.mark.parametrize("num_examples", [2, 5, 6])
def test_all_orders_of_a_small_set_are_equally_likely(num_examples):
    num_keys = 40_000
    keys = jax.random.split(jax.random.key(2), num_keys)
    positions = jnp.arange(num_examples)
    orders = np.asarray(
        jax.jit(jax.vmap(lambda key: batches._permute(key, positions, num_examples)))(keys)
    )
    codes = orders @ num_examples ** np.arange(num_examples)
    _, counts = np.unique(codes, return_counts=True)
    num_orders = int(np.prod(np.arange(1, num_examples + 1)))
    assert len(counts) == num_orders
    probability = 1 / num_orders
    standard_error = np.sqrt(num_keys * probability * (1 - probability))
    assert np.abs(counts - num_keys * probability).max() < 5 * standard_error
    if num_orders > 2:
        chi_square = np.sum((counts - num_keys * probability) ** 2) / (num_keys * probability)
        degrees = num_orders - 1
        assert chi_square < degrees + 5 * np.sqrt(2 * degrees)


@pytest.mark.thorough
def test_positions_and_neighbors_are_uniform_over_epochs():
    num_examples, num_epochs = 50, 20_000
    key = jax.random.key(3)
    first_two = jax.jit(
        jax.vmap(
            lambda number: batches.epoch_indices(key, number, num_examples=50, batch_size=50)[:2]
        )
    )(jnp.arange(num_epochs))
    first, second = np.asarray(first_two).T
    for values, cells in (
        (first, num_examples),
        (second, num_examples),
        ((second - first) % num_examples - 1, num_examples - 1),
    ):
        counts = np.bincount(values, minlength=cells)
        expected = num_epochs / cells
        assert len(counts) == cells
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
        chi_square = np.sum((counts - expected) ** 2) / expected
        assert chi_square < cells - 1 + 5 * np.sqrt(2 * (cells - 1))


@pytest.mark.thorough
def test_traced_steps_equal_eager_ones():
    key = jax.random.key(4)
    images = jnp.arange(53 * 4, dtype=jnp.uint8).reshape(53, 2, 2, 1)
    steps = jnp.arange(12)
    eager = jnp.stack([batches.draw(key, images, step, batch_size=10) for step in (11,)])
    jitted = jax.jit(lambda step: batches.draw(key, images, step, batch_size=10))
    _, scanned = jax.lax.scan(lambda carry, step: (carry, jitted(step)), None, steps)
    mapped = jax.vmap(jitted)(steps)
    assert eager.shape == (1, 10, 2, 2, 1)
    assert eager.dtype == jnp.uint8
    np.testing.assert_array_equal(eager, mapped[11:])
    np.testing.assert_array_equal(scanned, mapped)
    np.testing.assert_array_equal(jnp.stack([jitted(step) for step in steps]), mapped)


def test_draw_gathers_the_indices_of_the_step():
    key = jax.random.key(6)
    images = jnp.arange(40, dtype=jnp.uint8).reshape(40, 1, 1, 1)
    indices = batches.epoch_indices(key, 9, num_examples=40, batch_size=6)
    batch = batches.draw(key, images, 9, batch_size=6)
    np.testing.assert_array_equal(batch[:, 0, 0, 0], indices)


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_that_does_not_fit_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size} and num_examples=10"):
        batches.epoch_indices(jax.random.key(0), 0, num_examples=10, batch_size=batch_size)


def coded_images(batch, height, width):
    """Images whose three channels spell example, row and column."""
    grid = np.meshgrid(np.arange(batch), np.arange(height), np.arange(width), indexing="ij")
    return jnp.asarray(np.stack(grid, axis=-1), jnp.uint8)


def test_crops_are_windows_of_their_own_image_at_uniform_offsets():
    images = coded_images(200, 9, 7)
    crops = np.asarray(
        jax.jit(batches.random_crop, static_argnames="size")(jax.random.key(7), images, size=5)
    )
    assert crops.shape == (200, 5, 5, 3)
    assert crops.dtype == np.uint8
    corners = crops[:, 0, 0].astype(int)
    np.testing.assert_array_equal(corners[:, 0], np.arange(200))
    for image, crop, (_, row, column) in zip(np.asarray(images), crops, corners, strict=True):
        np.testing.assert_array_equal(crop, image[row : row + 5, column : column + 5])
    for offsets, cells in ((corners[:, 1], 5), (corners[:, 2], 3)):
        counts = np.bincount(offsets, minlength=cells)
        assert len(counts) == cells
        probability = 1 / cells
        bound = 5 * np.sqrt(200 * probability * (1 - probability))
        assert np.abs(counts - 200 * probability).max() < bound
    # Rows and columns are drawn apart: all 15 offsets come up.
    assert len(np.unique(corners[:, 1:], axis=0)) == 15


def test_a_full_size_crop_is_the_image():
    images = coded_images(3, 4, 4)
    np.testing.assert_array_equal(batches.random_crop(jax.random.key(8), images, size=4), images)
    # Full height alone still slides along the width.
    wide = coded_images(50, 4, 6)
    crops = batches.random_crop(jax.random.key(9), wide, size=4)
    assert set(np.asarray(crops[:, 0, 0, 2]).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("size", [0, 6, 9])
def test_a_crop_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=f"8x5, got {size}"):
        batches.random_crop(jax.random.key(0), coded_images(2, 8, 5), size=size)


def test_binarize_has_the_pixel_as_its_mean():
    levels = np.array([0, 1, 64, 128, 254, 255], np.uint8)
    images = jnp.broadcast_to(jnp.asarray(levels)[None, :], (100_000, 6))
    bits = batches.binarize(jax.random.key(10), images)
    assert bits.dtype == jnp.uint8
    assert bits.shape == images.shape
    assert set(np.unique(bits)) == {0, 1}
    mean = np.asarray(bits, np.float64).mean(axis=0)
    probability = levels / 255
    standard_error = np.sqrt(probability * (1 - probability) / 100_000)
    # Zero standard error at the ends: levels 0 and 255 must be exact.
    assert (np.abs(mean - probability) <= 5 * standard_error).all()


@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 4), (8, 4), (3, 4), (1, 1), (0, 4)])
def test_padded_batches_cover_the_set_in_order(num_images, batch_size):
    images = np.arange(1, 1 + num_images * 4, dtype=np.uint8).reshape(num_images, 2, 2, 1)
    pairs = list(batches.padded_batches(images, batch_size))
    assert len(pairs) == -(-num_images // batch_size)
    for batch, mask in pairs:
        assert batch.shape == (batch_size, 2, 2, 1)
        assert batch.dtype == np.uint8
        assert mask.shape == (batch_size,)
        assert mask.dtype == np.bool_
        assert not batch[~mask].any()
    kept = [batch[mask] for batch, mask in pairs]
    np.testing.assert_array_equal(np.concatenate([images[:0], *kept]), images)


def test_padded_batches_refuse_an_empty_batch():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        batches.padded_batches(np.zeros((3, 2, 2, 1), np.uint8), 0)


def test_random_flip_mirrors_every_second_image() -> None:
    images = coded_images(250, 4, 5)
    flipped = batches.random_flip(jax.random.key(1), images)
    assert flipped.dtype == images.dtype
    mirrored = np.asarray((flipped == images[:, :, ::-1]).all((1, 2, 3)))
    same = np.asarray((flipped == images).all((1, 2, 3)))
    assert (mirrored ^ same).all()
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(250)
