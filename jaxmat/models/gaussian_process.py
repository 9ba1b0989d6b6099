"""A Gaussian process as a head: its posterior as a pure function of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# What a fitted process keeps, and the shape of each array for n labels and d columns.
_SHAPES = {
    "center": "d",
    "scale": "d",
    "bound": "d",
    "inputs": "nd",
    "whitener": "nn",
    "weights": "n",
    "offset": "",
    "variance": "",
    "noise": "",
    "ratios": "n",
}
RATIOS = "ratios"  # what processes of earlier bundles lack
# A label counts for the spread of a crystal by the kernel to this power: as at a length of about an
# eighth of that over which the property changes.
_NEARNESS = 8
# Of matrix products. What is left of the variance is a small difference of large numbers, which the
# ten bits that accelerators take by default would leave nothing of.
_PRECISION = "float32"


class GaussianProcessHead(nn.Module):
    """A Gaussian process on pooled vectors; it is not trained but fitted in closed form.

    Its parameters come from `jaxmat.training.gaussian_process.fit`.

    Attributes:
        labels: that it is fitted to.
        columns: of its inputs.
        descriptors: whether these are the vectors and, beside them, the crystals' descriptors.
    """

    labels: int = 1
    columns: int = 1
    descriptors: bool = False

    def setup(self) -> None:
        """Names the arrays of the process."""
        self.process = {
            name: self.param(name, nn.initializers.zeros_init(), shape)
            for name, shape in array_shapes(self.labels, self.columns).items()
        }

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Maps [crystals, columns] to [crystals, 1]."""
        return posterior_mean(self.process, inputs)[:, None]


def array_shapes(labels: int, columns: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of a fitted process by name."""
    sizes = {"n": labels, "d": columns}
    return {name: tuple(sizes[size] for size in shape) for name, shape in _SHAPES.items()}


def posterior(process: Mapping[str, Any], inputs: Any) -> tuple[jax.Array, jax.Array]:
    """Returns mean and standard deviation of new labels (noise included), [crystals] each.

    With the kernel R of the fitted inputs, R + noise = L Lᵀ and the whitener W = L⁻¹, a new input
    with the kernel vector r has the mean offset + (W r)·weights and the variance
    variance (1 + noise - |W r|²) (Rasmussen and Williams, Gaussian Processes for Machine Learning,
    2006, algorithm 2.1). The kernel is Matérn's with ν = 3/2 at unit length: the lengths are in
    `scale`.

    Args:
        process: arrays of a fitted process, see `jaxmat.training.gaussian_process.fit`.
        inputs: [crystals, columns].
    """
    return _posterior(process, _kernel(process, inputs))


def posterior_mean(process: Mapping[str, Any], inputs: Any) -> jax.Array:
    """Returns the means of new labels, [crystals]; see `posterior`."""
    return posterior(process, inputs)[0]


def expected_error(process: Mapping[str, Any], inputs: Any) -> jax.Array:
    """Returns about how wrong the mean of new labels is, [crystals].

    The standard deviation of the posterior knows how far labels are, and takes them all to be
    equally hard. It is multiplied by how wrong the process was about the labels nearby.

    Args:
        process: arrays of a fitted process, see `jaxmat.training.gaussian_process.fit`.
        inputs: [crystals, columns].
    """
    kernel, ratios = _kernel(process, inputs), process["ratios"]
    with jax.default_matmul_precision(_PRECISION):
        return _posterior(process, kernel)[1] * nearby(kernel, ratios, ratios.mean())


def nearby(kernel: Any, values: Any, elsewhere: Any) -> Any:
    """Returns the mean of the labels' values about crystals, and of one pseudo-label's, [crystals].

    Args:
        kernel: of crystals and labels, [crystals, labels].
        values: [labels].
        elsewhere: the value of the pseudo-label, which counts as a label at the place of the
            crystal: one for all crystals, or [crystals].
    """
    weight = kernel**_NEARNESS
    return (elsewhere + weight @ values) / (1 + weight.sum(1))


def _posterior(process: Mapping[str, Any], kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns `posterior` of crystals with this kernel, [crystals, labels]."""
    with jax.default_matmul_precision(_PRECISION):
        whitened = kernel @ process["whitener"].T
        mean = process["offset"] + whitened @ process["weights"]
    left = 1 + process["noise"] - (whitened**2).sum(1)
    return mean, jnp.sqrt(process["variance"] * jnp.maximum(left, process["noise"]))


def _kernel(process: Mapping[str, Any], inputs: Any) -> jax.Array:
    """Returns the kernel of new inputs and fitted ones, [crystals, labels]."""
    new = standardized(process, inputs)
    old = process["inputs"]
    with jax.default_matmul_precision(_PRECISION):
        products = new @ old.T
    return matern(jnp.maximum((new**2).sum(1)[:, None] + (old**2).sum(1) - 2 * products, 0.0))


def standardized(process: Mapping[str, Any], inputs: Any) -> Any:
    """Returns inputs in the lengths of the kernel; what lies far out is held at a bound."""
    bound = process["bound"]
    return ((inputs - process["center"]) * process["scale"]).clip(-bound, bound)


def matern(squares: jax.Array) -> jax.Array:
    """Returns Matérn's kernel with ν = 3/2 of squared distances."""
    # The square root has no derivative at zero.
    distance = jnp.sqrt(3 * jnp.maximum(squares, 1e-30))
    return (1 + distance) * jnp.exp(-distance)
