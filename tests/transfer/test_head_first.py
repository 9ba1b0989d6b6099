from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxmat.models.heads import LinearHead, make_head
from jaxmat.training.losses import absolute, squared
from jaxmat.transfer.head_first import HeadFirst, Pooled, fit_head, pool

HEAD = LinearHead()
QUICK = HeadFirst(learning_rate=0.3, steps=300, weight_decay=0.0)


def make_part(seed, crystals=40, noise=0.0):
    """A linear problem with some labels missing; what stands in their place is far off."""
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=(crystals, 5)).astype(np.float32)
    target = vector @ np.arange(5.0)[:, None] + 2.0 + noise * rng.normal(size=(crystals, 1))
    mask = rng.random((crystals, 1)) > 0.3
    return Pooled(vector, np.where(mask, target, 1e6).astype(np.float32), mask.astype(np.float32))


def least_squares(part):
    rows = part.target_mask[:, 0] > 0
    columns = np.column_stack([part.vector[rows], np.ones(rows.sum())])
    return np.linalg.lstsq(columns, part.target[rows, 0], rcond=None)[0]


@pytest.fixture(scope="module")
def params():
    return HEAD.init(jax.random.key(0), np.zeros((1, 5), np.float32))["params"]


def fit(params, training, validation, settings=QUICK, elementwise=squared):
    return fit_head(HEAD, params, training, validation, settings=settings, elementwise=elementwise)


def mean_square(params, part):
    residual = HEAD.apply({"params": params}, part.vector) - part.target
    return np.mean(np.square(residual[part.target_mask > 0]))


def test_matrix_products_are_exact_on_every_device(params):
    part = make_part(1)
    program = jax.jit(lambda start: fit(start, part, part)).lower(params).as_text()
    assert program.count("dot_general") == program.count("precision = [HIGHEST, HIGHEST]") > 1


def test_finds_the_least_squares_solution_on_the_labels(params):
    training = make_part(1, noise=0.1)
    # On the training crystals themselves, the last step is the best.
    fitted, loss = fit(params, training, training)
    solution = least_squares(training)
    np.testing.assert_allclose(fitted["out"]["kernel"][:, 0], solution[:-1], atol=1e-3)
    np.testing.assert_allclose(fitted["out"]["bias"], solution[-1:], atol=1e-3)
    np.testing.assert_allclose(loss, mean_square(fitted, training), rtol=1e-5)


def test_the_step_is_chosen_on_the_validation_part(params):
    training = make_part(1)
    start = jax.tree.map(np.zeros_like, params)
    last, _ = fit(start, training, training)
    # Half of the training targets: passed on the way from zero.
    halfway = training._replace(target=training.target / 2)
    fitted, lowest = fit(start, training, halfway)
    np.testing.assert_allclose(lowest, mean_square(fitted, halfway), rtol=1e-5)
    assert lowest < 0.5 * min(mean_square(start, halfway), mean_square(last, halfway))
    # Where every step leads away, the start is the best.
    opposite = training._replace(target=-training.target)
    fitted, _ = fit(start, training, opposite)
    assert jax.tree.all(jax.tree.map(np.array_equal, fitted, start))


def test_it_is_a_function_of_its_arguments_and_populations_are_its_members(params):
    parts = [(make_part(i), make_part(i + 10)) for i in (1, 2)]
    alone = [fit(params, *part) for part in parts]
    again = fit(params, *parts[0])
    assert jax.tree.all(jax.tree.map(np.array_equal, alone[0], again))
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *parts)
    together = jax.jit(jax.vmap(lambda training, validation: fit(params, training, validation)))
    for i, (row, _) in enumerate(zip(alone, parts, strict=True)):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], together(*stacked))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), member, row
        )


def test_loss_decay_and_kind_of_head_are_as_asked(params):
    training = make_part(1)
    outlier = training.target.copy()
    outlier[np.argmax(training.target_mask)] = 1e3
    spoilt = training._replace(target=outlier)
    robust, _ = fit(params, spoilt, training, elementwise=absolute)
    fragile, _ = fit(params, spoilt, training)
    error = [np.abs(each["out"]["kernel"][:, 0] - np.arange(5)).max() for each in (robust, fragile)]
    assert error[0] < 0.1 < error[1]
    decayed, _ = fit(params, training, training, HeadFirst(0.3, 300, weight_decay=10.0))
    assert np.linalg.norm(decayed["out"]["kernel"]) < 0.8 * np.linalg.norm(np.arange(5))
    head = make_head({"kind": "mlp", "width": 4}, name="heads_gap")
    start = head.init(jax.random.key(0), training.vector)["params"]
    settings = HeadFirst(steps=50)
    before = fit_head(
        head, start, training, training, settings=HeadFirst(steps=1), elementwise=squared
    )
    after = fit_head(head, start, training, training, settings=settings, elementwise=squared)
    assert after[1] < before[1]


def test_pooled_vectors_are_those_of_evaluation_without_padding(make_network, initialise, batches):
    network = make_network("gap")
    variables = initialise(network, 1)
    pooled = pool(network, variables, batches[:2])
    assert pooled.vector.shape == (6, 4) and pooled.target.shape == pooled.target_mask.shape == (
        6,
        1,
    )
    target = np.concatenate([batch.target[:3] for batch in batches[:2]])
    np.testing.assert_array_equal(pooled.target, target)
    params = variables["params"]["heads_gap"]
    predict = jax.jit(network.apply)
    for i in range(2):
        expected = predict(variables, batches[i])[:3]
        found = LinearHead().apply({"params": params}, pooled.vector[3 * i : 3 * i + 3])
        np.testing.assert_allclose(found, expected, rtol=1e-5)
