"""The Gaussian process: closed forms against their definitions, and what it is asked to promise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmat.errors import UserError
from jaxmat.models.gaussian_process import expected_error, nearby, posterior, standardized
from jaxmat.training import gaussian_process
from jaxmat.training.gaussian_process import fit


def labels(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs of two blocks, and a noisy smooth function of the first column of each."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n, 7)) * [1, 1, 5, 5, 0.1, 1, 1] + 3
    target = np.sin(inputs[:, 0]) + 0.1 * inputs[:, 2] + 0.1 * rng.normal(size=n)
    return inputs, target


def predicted(process: dict[str, np.ndarray], inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = posterior(process, jnp.asarray(inputs, jnp.float32))
    return np.asarray(mean), np.asarray(deviation)


def test_the_gradient_is_that_of_the_value() -> None:
    inputs, target = labels(40)
    squares = [gaussian_process._squares(inputs[:, columns]) for columns in ([0, 1], [2, 3, 4])]
    place = np.log([2.0, 3.0, 0.2])

    def value(logarithms: np.ndarray) -> float:
        return gaussian_process._negative_log_posterior(logarithms, squares, target)[0]

    _, gradient = gaussian_process._negative_log_posterior(place, squares, target)
    steps = 1e-5 * np.eye(3)
    differences = [(value(place + step) - value(place - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(gradient, differences, rtol=1e-5)


def test_the_posterior_is_the_textbooks() -> None:
    inputs, target = labels(50)
    process = fit(inputs, target, (2, 5)).process
    new, _ = labels(20, seed=1)
    old = process["inputs"].astype(float)
    points = standardized(process, new).astype(float)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        r = np.sqrt(3) * np.linalg.norm(a[:, None] - b[None], axis=-1)
        return process["variance"] * (1 + r) * np.exp(-r)

    noise = process["variance"] * process["noise"]
    inverse = np.linalg.inv(kernel(old, old) + noise * np.eye(50))
    cross = kernel(points, old)
    mean = cross @ inverse @ (target - target.mean()) + target.mean()
    variance = process["variance"] + noise - np.einsum("ij,jk,ik->i", cross, inverse, cross)
    found = predicted(process, new)
    np.testing.assert_allclose(found[0], mean, atol=1e-4)
    np.testing.assert_allclose(found[1], np.sqrt(variance), rtol=1e-3)


def test_leave_one_out_is_the_posterior_of_the_others() -> None:
    inputs, target = labels(30)
    fitted = fit(inputs, target, (7,))
    old, process = fitted.process["inputs"].astype(float), fitted.process
    r = np.sqrt(3) * np.linalg.norm(old[:, None] - old[None], axis=-1)
    kernel = process["variance"] * ((1 + r) * np.exp(-r) + process["noise"] * np.eye(30))
    for i in (0, 17):
        others = np.arange(30) != i
        weights = np.linalg.solve(kernel[others][:, others], kernel[others, i])
        residual = target[others] - target.mean()
        assert fitted.mean[i] == pytest.approx(weights @ residual + target.mean(), abs=1e-4)
        deviation = np.sqrt(kernel[i, i] - weights @ kernel[others, i])
        error = abs(fitted.mean[i] - target[i])
        assert process["ratios"][i] == pytest.approx(error / deviation, rel=1e-3)
        to_others = ((1 + r) * np.exp(-r))[i, others]
        # The pseudo-label stands for the others, too: the error itself says nothing of its width.
        weight, mean = to_others**8, process["ratios"][others].mean()
        ratio = (mean + weight @ process["ratios"][others]) / (1 + weight.sum())
        assert fitted.spread[i] == pytest.approx(deviation * ratio, rel=1e-3)


def test_the_rows_of_a_kernel_that_are_made_together_do_not_matter(monkeypatch) -> None:
    inputs, target = labels(50)
    whole = fit(inputs, target, (2, 5))
    monkeypatch.setattr(gaussian_process, "_ROWS", 7)
    parts = fit(inputs, target, (2, 5))
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(parts.spread, whole.spread, rtol=1e-9)
    for name, values in whole.process.items():
        np.testing.assert_allclose(parts.process[name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_spread_is_wider_where_the_labels_scatter_more() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-3, 3, size=(300, 1))
    hard = inputs[:, 0] > 0
    target = np.sin(inputs[:, 0]) + rng.normal(size=300) * np.where(hard, 0.5, 0.02)
    fitted = fit(inputs, target, (1,))
    deviation = predicted(fitted.process, inputs)[1]
    spread = np.asarray(expected_error(fitted.process, inputs))
    calm, rough = np.median(spread[~hard]), np.median(spread[hard])
    assert rough > 5 * calm and np.median(deviation[hard]) < 2 * np.median(deviation[~hard])
    np.testing.assert_allclose(fitted.spread, spread, rtol=0.5)


def test_far_from_all_labels_their_mean_is_taken() -> None:
    values = np.array([1.0, 2.0, 6.0])
    assert nearby(np.zeros((1, 3)), values, 3.0) == pytest.approx([3.0])
    near = np.array([[1.0, 0.0, 0.0]])
    assert nearby(near, values, 3.0) == pytest.approx([2.0])


def test_intervals_of_ten_labels_hold_as_many_new_ones_as_they_should() -> None:
    """The quantile of ratios to leave-one-out spreads, as calibration takes it."""
    held, compiled = [], [jax.jit(function) for function in (posterior, expected_error)]
    for seed in range(150):
        rng = np.random.default_rng(seed)
        inputs = rng.normal(size=(110, 3))
        target = inputs[:, 0] + rng.normal(size=110)
        fitted = fit(inputs[:10], target[:10], (3,))
        ratios = np.sort(np.abs(fitted.mean - target[:10]) / fitted.spread)
        (mean, _), spread = (of(fitted.process, inputs[10:]) for of in compiled)
        held.append(np.mean(np.abs(mean - target[10:]) <= ratios[-1] * spread))
    # Of ten exchangeable ratios the largest is above a new one with probability 10 / 11.
    assert np.mean(held) > 0.87


def test_a_crystal_that_stands_there_twice_does_not_tell_its_own_label() -> None:
    """Its labels are left out together: intervals hold new ones, and are no narrower for it."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(140, 7))
    target = inputs[:, 0] + 0.5 * rng.normal(size=140)
    once, new = fit(inputs[:40], target[:40], (7,)), slice(40, None)
    given = np.vstack([inputs[:40], inputs[:40] + 1e-7])  # written in another way
    twice = fit(given, np.tile(target[:40], 2), (7,))
    np.testing.assert_allclose(twice.mean[:40], twice.mean[40:], atol=1e-3)
    assert np.abs(twice.mean - twice.target).mean() > 0.8 * np.abs(once.mean - once.target).mean()
    for fitted in (once, twice):
        factor = np.quantile(np.abs(fitted.mean - fitted.target) / fitted.spread, 0.9)
        mean, _ = predicted(fitted.process, inputs[new])
        spread = np.asarray(expected_error(fitted.process, inputs[new]))
        assert 0.8 < np.mean(np.abs(mean - target[new]) < factor * spread) < 0.98


def test_labels_that_are_left_out_together_are_predicted_from_the_others() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 12))
    kernel, target = root @ root.T + np.eye(12), rng.normal(size=12)
    same = np.array([0, 1, 0, 2, 3, 0, 4, 5, 6, 1, 7, 8])
    whitener = np.linalg.inv(np.linalg.cholesky(kernel))
    solved = whitener.T @ whitener @ target
    error, variance = gaussian_process._leave_out(whitener, solved, same)
    for i in range(12):
        others = same != same[i]
        weights = np.linalg.solve(kernel[others][:, others], kernel[others, i])
        assert error[i] == pytest.approx(target[i] - weights @ target[others])
        assert variance[i] == pytest.approx(kernel[i, i] - weights @ kernel[others, i])


@pytest.mark.parametrize("function", [posterior, expected_error])
def test_matrix_products_are_exact_on_every_device(function) -> None:
    """By default GPUs and TPUs round factors to ten bits and eight."""
    inputs, target = labels(20)
    process = fit(inputs, target, (7,)).process
    program = jax.jit(function).lower(process, inputs.astype(np.float32)).as_text()
    assert program.count("dot_general") == program.count("precision = [HIGHEST, HIGHEST]") > 1


def test_it_learns_and_its_deviation_is_that_of_its_errors_and_grows_far_out() -> None:
    fitted = fit(*labels(300), (2, 5))
    inputs, target = labels(300, seed=1)
    mean, deviation = predicted(fitted.process, inputs)
    assert np.abs(mean - target).mean() < 0.3 * np.abs(target - target.mean()).mean()
    assert 0.8 < np.mean(np.abs(mean - target) < 1.645 * deviation) < 0.99
    _, far = predicted(fitted.process, inputs + 100)
    assert far.min() > deviation.max()


def test_neither_units_nor_the_order_of_labels_matter() -> None:
    inputs, target = labels(40)
    new, _ = labels(10, seed=1)
    factors = np.array([1e-3, 1e4, 1, 1, 1, 1, 7])
    order = np.random.default_rng(0).permutation(40)
    mean, deviation = predicted(fit(inputs, target, (2, 5)).process, new)
    other = fit((inputs * factors)[order], 1000 * target[order], (2, 5)).process
    found = predicted(other, new * factors)
    np.testing.assert_allclose(found[0], 1000 * mean, rtol=1e-2, atol=1)
    np.testing.assert_allclose(found[1], 1000 * deviation, rtol=1e-2)


@pytest.mark.parametrize("target", [[1.0, 2.0], [3.0, 3.0], [0.0, 0.0, 0.0]])
def test_few_or_equal_labels_and_equal_inputs_give_finite_numbers(target: list[float]) -> None:
    for inputs in (np.ones((len(target), 3)), np.eye(len(target), 3)):
        fitted = fit(inputs, np.array(target), (3,))
        new = np.vstack([inputs, inputs + 1e6])
        found = [*predicted(fitted.process, new), expected_error(fitted.process, new)]
        assert np.isfinite(found).all() and (np.array(found[1:]) > 0).all()
        assert np.isfinite(fitted.mean).all() and (fitted.spread > 0).all()


@pytest.mark.parametrize("n", [0, 1, gaussian_process.MOST_LABELS + 1])
def test_numbers_of_labels_that_it_is_not_made_for_are_refused(n: int) -> None:
    with pytest.raises(UserError, match=f"2 to 5000 labels .* not to {n}"):
        fit(np.zeros((n, 1)), np.zeros(n), (1,))


def test_of_very_many_labels_some_tell_the_lengths_and_all_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs, target = labels(400)
    whole = fit(inputs, target, (7,))
    monkeypatch.setattr(gaussian_process, "_LABELS_TO_SEARCH", 200)
    approximate = fit(inputs, target, (7,))
    assert approximate.process["whitener"].shape == (400, 400)
    error, same = (np.abs(each.mean - target).mean() for each in (whole, approximate))
    assert same == pytest.approx(error, rel=0.1)
