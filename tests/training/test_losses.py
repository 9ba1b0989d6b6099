from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmat.training.losses import absolute, huber, masked_loss, squared

ELEMENTWISE = [squared, absolute, huber]


def mean_loss(prediction, batch, elementwise, average):
    numerators, denominators = masked_loss(prediction, batch, elementwise, average)
    return jnp.sum(numerators / jnp.maximum(denominators, 1))


@pytest.fixture
def batch(make_batch):
    return make_batch(3, crystals=6, room=9, missing=0.4)


@pytest.fixture
def prediction(batch):
    return jnp.asarray(np.random.default_rng(5).normal(size=batch.target.shape, scale=2))


@pytest.mark.parametrize("elementwise", ELEMENTWISE)
def test_properties_average_is_the_mean_of_their_means(elementwise, batch, prediction):
    present = batch.target_mask == 1
    assert 0 < present[:6, 0].sum() != present[:6, 1].sum() > 0
    losses = elementwise(prediction - batch.target)
    expected = np.mean([np.mean(losses[present[:, i], i]) for i in range(2)])
    np.testing.assert_allclose(
        mean_loss(prediction, batch, elementwise, "properties"), expected, rtol=1e-6
    )


@pytest.mark.parametrize("average", ["properties", "entries"])
def test_a_property_without_labels_has_no_gradient_and_no_say(average, batch, prediction):
    lacking = batch._replace(
        target=np.stack([batch.target[:, 0], np.full(len(batch.target), np.nan)], axis=1),
        target_mask=batch.target_mask * [1, 0],
    )
    loss = jax.value_and_grad(mean_loss)
    value, gradient = loss(prediction, lacking, absolute, average)
    other, _ = loss(prediction.at[:, 1].set(jnp.inf), lacking, absolute, average)
    assert value == other > 0
    assert not gradient[:, 1].any() and gradient[:, 0].any()


def test_entries_average_is_the_published_loss(batch, prediction):
    """The published network multiplies its output by the mask; its targets are zero there."""
    masked = (prediction * batch.target_mask)[:6]
    expected = np.mean(np.abs(masked - batch.target[:6]))
    np.testing.assert_allclose(
        mean_loss(prediction, batch, absolute, "entries"), expected, rtol=1e-6
    )


def test_huber_is_smooth_where_it_changes():
    np.testing.assert_allclose(
        huber(jnp.array([-3.0, -0.5, 0.0, 1.0, 3.0])), [2.5, 0.125, 0, 0.5, 2.5]
    )
    slope = jax.vmap(jax.grad(huber))
    np.testing.assert_allclose(slope(jnp.array([-9.0, 0.25, 1.0, 9.0])), [-1, 0.25, 1, 1])


@pytest.mark.parametrize("average", ["properties", "entries"])
@pytest.mark.parametrize("elementwise", ELEMENTWISE)
def test_missing_labels_and_padding_have_no_say(elementwise, average, batch, prediction):
    absent = batch.target_mask == 0
    spoilt = batch._replace(target=np.where(absent, np.nan, batch.target))
    wild = jnp.where(absent, jnp.inf, prediction)
    loss = jax.value_and_grad(mean_loss)
    value, gradient = loss(prediction, batch, elementwise, average)
    assert np.all(gradient[absent] == 0) and np.all(gradient[~absent] != 0)
    for other in (
        loss(prediction, spoilt, elementwise, average),
        loss(wild, batch, elementwise, average),
    ):
        assert other[0] == value
        np.testing.assert_array_equal(other[1], gradient)


@pytest.mark.parametrize("average", ["properties", "entries"])
@pytest.mark.parametrize("elementwise", ELEMENTWISE)
@pytest.mark.parametrize("crystals", [0, 4])
def test_a_batch_without_labels_has_zero_loss_and_gradient(
    crystals, elementwise, average, make_batch, prediction
):
    batch = make_batch(1, crystals=4, room=9, missing=1.0)
    batch = batch._replace(crystal_mask=batch.crystal_mask * (crystals > 0))
    value, gradient = jax.value_and_grad(mean_loss)(prediction, batch, elementwise, average)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros_like(prediction))
