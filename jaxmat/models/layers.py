"""Layers of crystal graph networks on weighted, padded rows."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# torch.nn.BatchNorm1d's numbers, which the published models were trained with.
_BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1


class Linear(nn.Module):
    """Affine map with torch's default initialisation, U(±1/√fan_in) for kernel and bias.

    Attributes:
        features: width of the output.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [rows, fan_in] to [rows, features], computed in the type of x."""
        bound = x.shape[-1] ** -0.5

        kernel = self.param("kernel", _uniform, (x.shape[-1], self.features), bound)
        bias = self.param("bias", _uniform, (self.features,), bound)
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


@partial(jax.jit, static_argnames="shape")
def _uniform(key: jax.Array, shape: tuple[int, ...], bound: float) -> jax.Array:
    # A program of its own: a network has few shapes of weights, and many weights of each.
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


class WeightedEdges(NamedTuple):
    """Edges of a weighted graph, sorted by receiver; padding has weight zero.

    Attributes:
        sender: [edges].
        receiver: [edges].
        multiplicity: edges of the class that end at one node of its receiver, [edges].
        edge_count: edges of the class, [edges].
        node_count: nodes of the class, [nodes].
    """

    sender: jax.Array
    receiver: jax.Array
    multiplicity: jax.Array
    edge_count: jax.Array
    node_count: jax.Array


class BatchNormSiLU(nn.Module):
    """Batch norm whose statistics weight each row by a count, then SiLU.

    Rows of weight zero are padding. Statistics and output have the type of the weights where that
    is wider than the rows'. For the backward pass only the rows are kept.

    Two passes: the mean first, then the centred squares. The one-pass form goes negative in
    float32 on near-identical rows. The running variance is unbiased with n = sum of counts, as
    torch's is; a batch with n = 1 leaves it alone.

    Attributes:
        axis_name: device axis over which the sums run, if any.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
        """Normalises each channel and activates it.

        Args:
            x: [rows, channels].
            weight: count of each row, [rows].
            train: use and record the statistics of this batch, else the running ones.
        """
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        if train:
            n = self._sum(jnp.sum(weight))
            # Not weight @ x: float32 dot products of many rows are less exact (1e-5 against 4e-7).
            mean = self._sum(jnp.sum(weight[:, None] * x, axis=0)) / jnp.maximum(n, 1)
            squares = self._sum(_squares(x, mean, weight))
            var = squares / jnp.maximum(n, 1)
            if not self.is_initializing():
                unbiased = jnp.where(n > 1, squares / jnp.maximum(n - 1, 1), running_var.value)
                running_mean.value += BATCH_NORM_MOMENTUM * (
                    jnp.where(n > 0, mean, running_mean.value) - running_mean.value
                )
                running_var.value += BATCH_NORM_MOMENTUM * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        return _normalized_silu(x, mean, var, scale, bias)

    def _sum(self, value: jax.Array) -> jax.Array:
        return value if self.axis_name is None else jax.lax.psum(value, self.axis_name)


@jax.checkpoint
def _squares(x: jax.Array, mean: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.sum(weight[:, None] * jnp.square(x - mean), axis=0)


@jax.checkpoint
def _normalized_silu(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array
) -> jax.Array:
    return nn.silu((x - mean) * (scale * jax.lax.rsqrt(var + _BATCH_NORM_EPSILON)) + bias)


class Embedding(nn.Module):
    """Linear → batch norm → SiLU (the reference's MLPLayer).

    Attributes:
        features: width of the output.
        axis_name: see BatchNormSiLU.
    """

    features: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, weight: jax.Array, train: bool) -> jax.Array:
        """Maps [rows, fan_in] to [rows, features]; weight is the count of each row."""
        x = Linear(self.features, name="linear")(x)
        activated = BatchNormSiLU(self.axis_name, name="norm")(x, weight, train)
        return activated.astype(x.dtype)


class GatedGraphConv(nn.Module):
    """Edge-gated graph convolution on weighted rows (Bresson & Laurent, arXiv:1711.07553).

    m_e = W_src x_s + W_dst x_r + W_edge y_e gates the messages; each receiver takes the mean of
    its senders weighted by σ(m_e). Linear maps run on nodes before the gather, since there are
    far fewer nodes than edges. Gates and their sums have the type of the weights where that is
    wider than the rows'; what is returned has the type of what came in. For the backward pass m_e
    is kept and the gates are computed again: that takes hardly longer and halves the memory.

    Attributes:
        features: width of nodes and edges.
        axis_name: see BatchNormSiLU.
    """

    features: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, nodes: jax.Array, edges: jax.Array, graph: WeightedEdges, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Returns updated nodes and edges.

        Args:
            nodes: [nodes, features].
            edges: [edges, features].
            graph: where edges lead and how much they and their nodes count.
            train: see BatchNormSiLU.
        """
        sender, receiver = graph.sender, graph.receiver
        message = (
            Linear(self.features, name="src_gate")(nodes)[sender]
            + Linear(self.features, name="dst_gate")(nodes)[receiver]
            + Linear(self.features, name="edge_gate")(edges)
        )
        sent, gates = _gated_sums(message, Linear(self.features, name="dst_update")(nodes), graph)
        update = Linear(self.features, name="src_update")(nodes) + sent / (gates + 1e-6)
        activate = BatchNormSiLU(self.axis_name, name="bn_nodes")
        new_nodes = nodes + activate(update, graph.node_count, train)
        activate = BatchNormSiLU(self.axis_name, name="bn_edges")
        new_edges = edges + activate(message, graph.edge_count, train)
        return new_nodes.astype(nodes.dtype), new_edges.astype(edges.dtype)


@jax.checkpoint
def _gated_sums(
    message: jax.Array, values: jax.Array, graph: WeightedEdges
) -> tuple[jax.Array, jax.Array]:
    """Returns the gated values of the senders and the gates, both summed for each receiver."""
    gate = nn.sigmoid(message) * graph.multiplicity[:, None]
    sent = gate * values[graph.sender]
    return receive(sent, graph.receiver, len(values)), receive(gate, graph.receiver, len(values))


def receive(rows: jax.Array, receiver: jax.Array, receivers: int) -> jax.Array:
    """Returns the sum of the rows of each receiver, which rows are sorted by, [receivers, ...]."""
    return jax.ops.segment_sum(rows, receiver, receivers, indices_are_sorted=True)


def radial_basis(values: jax.Array, low: float, high: float, bins: int) -> jax.Array:
    """Returns exp(-γ (value - center)²) for evenly spaced centers, γ = 1/spacing (not squared).

    Centers and γ are the float32 numbers of the reference in every precision (torch.linspace
    fills from both ends, each step fused).

    Args:
        values: [rows].
        low: first center.
        high: last center.
        bins: number of centers.
    """
    centers = radial_centers(low, high, bins)
    gamma = 1 / np.diff(centers).mean()
    return jnp.exp(-gamma.astype(values.dtype) * jnp.square(values[:, None] - centers))


def radial_centers(low: float, high: float, bins: int) -> np.ndarray:
    """Returns the centers of `radial_basis`, float32 [bins]."""
    step = float(np.float32((high - low) / (bins - 1)))
    i = np.arange(bins)
    centers = np.where(i < bins // 2, low + step * i, high - step * (bins - 1 - i))
    return centers.astype(np.float32)
