"""Fitting a Gaussian process: hyperparameters by marginal likelihood, then a solve.

scikit-learn has one, too, but neither leave-one-out in closed form nor one length for each block
of columns, and its fits are objects to be pickled; with scipy it takes no more than this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cholesky, lapack
from scipy.optimize import minimize
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxmat.errors import UserError
from jaxmat.models.gaussian_process import nearby, standardized
from jaxmat.runtime.stopping import giving_up_at_once

MOST_LABELS = 5000
# The hyperparameters are found on so many labels, drawn at random where there are more.
_LABELS_TO_SEARCH = 1000
# Rows of a kernel that are made together.
_ROWS = 512
# Standard deviations from the mean where a column is cut off.
_BOUND = 4.0
# Log-normal priors: of a length, in units of the distance of two random inputs over √2, and of the
# noise, as a share of the variance. With ten labels the likelihood alone says little.
_LENGTH, _LENGTH_WIDTH = 2.0, 1.0
_NOISE, _NOISE_WIDTH = 0.1, 2.0
_LEAST_NOISE, _MOST_NOISE = 1e-4, 1e2
_LEAST_LENGTH, _MOST_LENGTH = 0.1, 100.0
# Inputs are of the same crystal where they differ by less than this, in standard deviations of the
# columns: what is left of it where a cell is written in another way.
_SAME = 1e-3
# Of an error to the deviation expected of it; no interval has the width zero.
_LEAST_RATIO = 1e-3


class Fitted(NamedTuple):
    """A process and what it says of its own labels.

    The others of a label are those of other crystals: one that stands there twice would tell its
    own label.

    Attributes:
        process: name → float32 array, for `posterior` and `expected_error` of
            `jaxmat.models.gaussian_process`.
        target: the labels, scaled, [labels].
        mean: of each label, predicted from all others, [labels].
        spread: about how wrong this prediction is, `expected_error` by all others, [labels].
    """

    process: dict[str, np.ndarray]
    target: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def check_number(labels: int) -> None:
    """Refuses to fit to fewer than two labels, or more than `MOST_LABELS`.

    Raises:
        UserError: so it is.
    """
    if not 2 <= labels <= MOST_LABELS:
        raise UserError(
            f"A Gaussian process is fitted to 2 to {MOST_LABELS} labels (its time grows with the "
            f"cube of their number), not to {labels}; lower config.data.n_train, or train a "
            "network."
        )


@giving_up_at_once()
def fit(inputs: np.ndarray, target: np.ndarray, blocks: Sequence[int], seed: int = 0) -> Fitted:
    """Fits a Gaussian process with Matérn's kernel, ν = 3/2.

    Columns are standardised. The squared distance is the sum over blocks of columns of the mean
    squared difference over the square of the block's length. Lengths and noise maximise the
    marginal likelihood times weak priors, the variance in closed form with one pseudo-label.

    Args:
        inputs: [labels, columns], finite.
        target: scaled, finite, [labels].
        blocks: columns of each block, in order.
        seed: of the labels that the hyperparameters are found on where there are very many.

    Raises:
        UserError: see `check_number`.
    """
    labels = len(target)
    check_number(labels)
    inputs = np.asarray(inputs, np.float64)
    center, spread = inputs.mean(axis=0), inputs.std(axis=0)
    varies = spread > 1e-9 * np.maximum(np.abs(center), 1)
    scale = np.where(varies, 1 / np.where(varies, spread, 1), 0)
    offset, deviation = float(np.mean(target)), float(np.std(target)) or 1.0
    wanted = (target - offset) / deviation

    columns = np.split(np.arange(inputs.shape[1]), np.cumsum(blocks)[:-1])
    process = {"center": center, "scale": scale, "bound": np.full(len(scale), _BOUND)}
    standard = standardized(process, inputs)
    same = _same_inputs(standard)
    searched = np.arange(labels)
    if labels > _LABELS_TO_SEARCH:
        rng = np.random.default_rng(seed)
        searched = rng.choice(labels, _LABELS_TO_SEARCH, replace=False)
    *lengths, noise = _search([standard[searched][:, c] for c in columns], wanted[searched])

    for block, length in zip(columns, lengths, strict=True):
        factor = 1 / (length * np.sqrt(len(block)))
        process["scale"][block] *= factor
        process["bound"][block] *= factor
    scaled = standardized(process, inputs)
    # Of such a matrix, 200 MB with the most labels, there is never more than one. The kernel is its
    # own transpose, which LAPACK can overwrite.
    kernel = np.empty((labels, labels))
    for some in _blocks(labels):
        kernel[some] = _matern(_squares(scaled, some))[0]
    kernel[np.diag_indices(labels)] += noise
    lower = cholesky(kernel.T, lower=True, overwrite_a=True)
    del kernel
    whitener = _inverse_of_lower(lower)
    weights = whitener @ wanted
    variance = _variance(float(weights @ weights), labels)
    residual, scatter = _leave_out(whitener, whitener.T @ weights, same)
    error, expected = deviation * residual, deviation * np.sqrt(variance * scatter)
    ratios = np.maximum(np.abs(error) / expected, _LEAST_RATIO)
    process |= {
        "inputs": scaled,
        "whitener": whitener.astype(np.float32),
        "weights": deviation * weights,
        "offset": np.array(offset),
        "variance": np.array(deviation**2 * variance),
        "noise": np.array(noise),
        "ratios": ratios,
    }
    del lower, whitener
    for some in _blocks(labels):
        others = same[some, None] != same
        kernel = _matern(_squares(scaled, some))[0] * others
        elsewhere = others @ ratios / np.maximum(others.sum(1), 1)
        expected[some] *= nearby(kernel, ratios, np.maximum(elsewhere, _LEAST_RATIO))
    return Fitted(
        {name: np.asarray(values, np.float32) for name, values in process.items()},
        target,
        target - error,
        expected,
    )


def _same_inputs(standard: np.ndarray) -> np.ndarray:
    """Returns numbers of the inputs, the same for those of the same crystal, [labels]."""
    labels, columns = standard.shape
    pairs = [
        np.argwhere(_squares(standard, some) < columns * _SAME**2) + [some.start, 0]
        for some in _blocks(labels)
    ]
    one, other = np.concatenate(pairs).T
    alike = coo_array((np.ones(len(one)), (one, other)), shape=(labels, labels))
    return np.asarray(connected_components(alike, directed=False)[1])


def _leave_out(
    whitener: np.ndarray, solved: np.ndarray, same: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns errors of labels predicted from those of other crystals, and their variances.

    With the inverse P of the kernel and noise, the labels of some rows, given all others, have the
    covariance of the inverse of P's block of these rows, and its product with P y as errors
    (Rasmussen and Williams 2006, equations 5.10 to 5.12 for one row).

    Args:
        whitener: W, with P = Wᵀ W, [labels, labels].
        solved: P y, [labels].
        same: equal for rows that are left out together, [labels].
    """
    variance = 1 / np.einsum("ij,ij->j", whitener, whitener)
    error = solved * variance
    numbers, counts = np.unique(same, return_counts=True)
    for number in numbers[counts > 1]:
        rows = np.flatnonzero(same == number)
        block = np.linalg.inv(whitener[:, rows].T @ whitener[:, rows])
        error[rows], variance[rows] = block @ solved[rows], np.diag(block)
    return error, variance


def _search(blocks: Sequence[np.ndarray], target: np.ndarray) -> np.ndarray:
    """Returns a length for each block of standard columns, then the noise."""
    squares = [_squares(block) / block.shape[1] for block in blocks]
    lengths = len(squares)

    def objective(logarithms: np.ndarray) -> tuple[float, np.ndarray]:
        return _negative_log_posterior(logarithms, squares, target)

    most = minimize(
        objective,
        np.log([_LENGTH] * lengths + [_NOISE]),
        jac=True,
        method="L-BFGS-B",
        bounds=np.log([(_LEAST_LENGTH, _MOST_LENGTH)] * lengths + [(_LEAST_NOISE, _MOST_NOISE)]),
        options={"maxiter": 50},
    )
    return np.exp(most.x)


def _negative_log_posterior(
    logarithms: np.ndarray, squares: Sequence[np.ndarray], target: np.ndarray
) -> tuple[float, np.ndarray]:
    """Returns the value and its gradient by the logarithms of lengths and noise."""
    labels, noise = len(target), np.exp(logarithms[-1])
    parts = [
        square * np.exp(-2 * length)
        for square, length in zip(squares, logarithms[:-1], strict=True)
    ]
    kernel, decay = _matern(sum(parts, np.zeros_like(parts[0])))
    slope = 3 * decay  # -2 times the kernel's derivative by the squared distance
    kernel[np.diag_indices(labels)] += noise
    lower = cholesky(kernel, lower=True)
    logarithm_of_determinant = 2 * np.log(np.diag(lower)).sum()
    inverse, _ = lapack.dpotri(lower, lower=True)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    solved = inverse @ target
    fitted = float(target @ solved)
    # Twice the derivative of the value by each entry of the kernel.
    by_entry = inverse - np.outer(solved, solved) / _variance(fitted, labels)
    gradient = [np.vdot(by_entry, slope * part) for part in parts]
    gradient.append(noise * np.trace(by_entry))
    centers = np.log([_LENGTH] * len(parts) + [_NOISE])
    widths = np.array([_LENGTH_WIDTH] * len(parts) + [_NOISE_WIDTH])
    away = (logarithms - centers) / widths
    value = (labels + 1) * np.log(fitted + 1) + logarithm_of_determinant
    return (value + away @ away) / 2, np.array(gradient) / 2 + away / widths


def _variance(fitted: float, labels: int) -> float:
    """Returns the most likely variance of the process, with one pseudo-label of variance 1."""
    return (fitted + 1) / (labels + 1)


def _blocks(labels: int) -> Iterator[slice]:
    """Yields some labels after others."""
    return (slice(start, start + _ROWS) for start in range(0, labels, _ROWS))


def _squares(points: np.ndarray, some: slice = slice(None)) -> np.ndarray:
    """Returns squared distances of some points from all, [some, points]."""
    norms = np.einsum("ij,ij->i", points, points)
    squares = norms[some, None] + norms
    squares -= 2 * points[some] @ points.T
    squares[np.arange(len(squares)), np.arange(len(points))[some]] = 0
    return np.maximum(squares, 0, out=squares)


def _matern(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns Matérn's kernel, ν = 3/2, and how it decays; the squares are overwritten."""
    squares *= 3
    distance = np.sqrt(squares, out=squares)
    decay = np.negative(distance)
    np.exp(decay, out=decay)
    distance += 1
    distance *= decay
    return distance, decay


def _inverse_of_lower(lower: np.ndarray) -> np.ndarray:
    """Returns the inverse of a matrix with zeros above its diagonal, which is overwritten."""
    inverse, _ = lapack.dtrtri(lower, lower=True, overwrite_c=True)
    return inverse
