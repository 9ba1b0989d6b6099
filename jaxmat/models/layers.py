"""Layers of crystal graph networks on weighted, padded rows."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# torch.nn.BatchNorm1d's numbers, which the published models were trained with.
_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1


class Linear(nn.Module):
    """Affine map with torch's default initialisation, U(±1/√fan_in) for kernel and bias.

    Attributes:
        features: width of the output.
    """

    features: int

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [rows, fan_in] to [rows, features], computed in the type of x."""
        kernel, bias = self.weights(x.shape[-1])
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)

    @nn.compact
    def weights(self, fan_in: int) -> tuple[jax.Array, jax.Array]:
        """Returns kernel, [fan_in, features], and bias, [features]."""
        bound = fan_in**-0.5
        kernel = self.param("kernel", _uniform, (fan_in, self.features), bound)
        bias = self.param("bias", _uniform, (self.features,), bound)
        return kernel, bias


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
        if not train:
            mean, var = running_mean.value, running_var.value
            return _normalized_silu(x, mean, jax.lax.rsqrt(var + _EPSILON), scale, bias)[0]
        output, (mean, var, n) = _batch_norm_silu(self.axis_name, x, weight, scale, bias)
        if not self.is_initializing():
            unbiased = jnp.where(n > 1, var * n / jnp.maximum(n - 1, 1), running_var.value)
            running_mean.value += BATCH_NORM_MOMENTUM * (
                jnp.where(n > 0, mean, running_mean.value) - running_mean.value
            )
            running_var.value += BATCH_NORM_MOMENTUM * (unbiased - running_var.value)
        return output


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_silu(
    axis_name: str | None, x: jax.Array, weight: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """Returns the output, and mean, variance and number of the rows, which have no gradient.

    The gradient is written out: derived by JAX it would go through the rows five times, not twice.
    """
    n = _sum(weight, axis_name)
    share = (weight / jnp.maximum(n, 1))[:, None]
    # Not share @ x: float32 dot products of many rows are less exact (1e-5 against 4e-7).
    mean = _sum(share * x, axis_name)
    var = _sum(share * jnp.square(x - mean), axis_name)
    output, _ = _normalized_silu(x, mean, jax.lax.rsqrt(var + _EPSILON), scale, bias)
    return output, (mean, var, n)


def _batch_norm_silu_forward(
    axis_name: str | None, x: jax.Array, weight: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[Any, Any]:
    output, statistics = _batch_norm_silu(axis_name, x, weight, scale, bias)
    return (output, statistics), (x, weight, scale, bias, statistics)


def _batch_norm_silu_backward(axis_name: str | None, kept: Any, gradients: Any) -> Any:
    x, weight, scale, bias, (mean, var, n) = kept
    x, gradient = _together(x, gradients[0])
    deviation = jax.lax.rsqrt(var + _EPSILON)
    _, slope = _normalized_silu(x, mean, deviation, scale, bias)
    normal = (x - mean) * deviation
    inner = gradient * slope
    along_bias, along_scale = jnp.sum(inner, axis=0), jnp.sum(inner * normal, axis=0)
    # What the rows of all devices do to the statistics of each.
    of_all = (along_bias, along_scale)
    if axis_name is not None:
        of_all = jax.lax.psum(of_all, axis_name)
    share = (weight / jnp.maximum(n, 1))[:, None]
    along_x = scale * deviation * (inner - share * (of_all[0] + normal * of_all[1]))
    return (
        along_x.astype(x.dtype),
        jnp.zeros_like(weight),
        along_scale.astype(scale.dtype),
        along_bias.astype(bias.dtype),
    )


_batch_norm_silu.defvjp(_batch_norm_silu_forward, _batch_norm_silu_backward)


def _normalized_silu(
    x: jax.Array, mean: jax.Array, deviation: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns SiLU of normalised rows, and its derivative; `deviation` is the inverse of one."""
    inner = (x - mean) * (scale * deviation) + bias
    gate = nn.sigmoid(inner)
    return inner * gate, gate * (1 + inner * (1 - gate))


def _together(kept: Any, gradients: Any) -> Any:
    """Returns both, on CPUs once both are there.

    XLA would else compute from what is kept before the gradients are there, and keep that as well.
    Accelerators have to be given more programs for it.
    """
    return jax.lax.platform_dependent(
        (kept, gradients), cpu=jax.lax.optimization_barrier, default=lambda both: both
    )


def _sum(rows: jax.Array, axis_name: str | None) -> jax.Array:
    total = jnp.sum(rows, axis=0)
    return total if axis_name is None else jax.lax.psum(total, axis_name)


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
        gate_kernel, gate_bias = self._weights("edge_gate", edges)
        names = ("src_gate", "dst_gate", "dst_update", "src_update")
        kernels, biases = zip(*(self._weights(name, nodes) for name in names), strict=True)
        # One product for all four. The bias of the edges is added before the gather, too. The
        # barrier lets the backward pass have the joined kernel, which XLA would join again.
        kernel = jax.lax.optimization_barrier(jnp.concatenate(kernels, axis=1))
        bias = jnp.concatenate([biases[0], biases[1] + gate_bias, *biases[2:]])
        of_sender, of_receiver, values, own = jnp.split(nodes @ kernel + bias, 4, axis=1)
        message = (
            take(of_sender, graph.sender, graph.multiplicity)
            + take(of_receiver, graph.receiver, graph.multiplicity, is_sorted=True)
            + edges @ gate_kernel
        )
        sent, gates = _gated_sums(message, values, graph)
        update = own + sent / (gates + 1e-6)
        activate = BatchNormSiLU(self.axis_name, name="bn_nodes")
        new_nodes = nodes + activate(update, graph.node_count, train)
        activate = BatchNormSiLU(self.axis_name, name="bn_edges")
        new_edges = edges + activate(message, graph.edge_count, train)
        return new_nodes.astype(nodes.dtype), new_edges.astype(edges.dtype)

    def _weights(self, name: str, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns kernel and bias of a linear layer in the type of its rows."""
        kernel, bias = Linear(self.features, name=name).weights(rows.shape[-1])
        return kernel.astype(rows.dtype), bias.astype(rows.dtype)


@jax.custom_vjp
def _gated_sums(
    message: jax.Array, values: jax.Array, graph: WeightedEdges
) -> tuple[jax.Array, jax.Array]:
    """Returns the gated values of the senders and the gates, both summed for each receiver.

    For the gradient, which is written out, nothing is kept but what came in.
    """
    gate = nn.sigmoid(message) * graph.multiplicity[:, None]
    sent = gate * take(values, graph.sender, graph.multiplicity)

    def one_by_one(*rows: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(receive(each, graph.receiver, len(values)) for each in rows)

    def at_once(*rows: jax.Array) -> tuple[jax.Array, ...]:
        total = receive(jnp.concatenate(rows, axis=1), graph.receiver, len(values))
        return tuple(jnp.split(total, len(rows), axis=1))

    # Many programs cost an accelerator time, long rows a CPU.
    return jax.lax.platform_dependent(sent, gate, cpu=one_by_one, default=at_once)


def _gated_sums_forward(message: jax.Array, values: jax.Array, graph: WeightedEdges) -> Any:
    return _gated_sums(message, values, graph), (message, values, graph)


def _gated_sums_backward(kept: Any, gradients: tuple[jax.Array, jax.Array]) -> Any:
    message, values, graph = kept
    (message, values), gradients = _together((message, values), gradients)
    along_sent, along_gate = (
        take(gradient, graph.receiver, graph.multiplicity, is_sorted=True) for gradient in gradients
    )
    opening, weight = nn.sigmoid(message), graph.multiplicity[:, None]
    along_gate = along_gate + along_sent * take(values, graph.sender, graph.multiplicity)
    along_message = along_gate * weight * opening * (1 - opening)
    along_values = jax.ops.segment_sum(
        along_sent * opening * weight, graph.sender, len(values), mode="promise_in_bounds"
    )
    return along_message.astype(message.dtype), along_values.astype(values.dtype), None


_gated_sums.defvjp(_gated_sums_forward, _gated_sums_backward)


def take(
    rows: jax.Array, index: jax.Array, weight: jax.Array, *, is_sorted: bool = False
) -> jax.Array:
    """Returns the rows of nodes for edges, [edges, ...].

    Args:
        rows: [nodes, ...].
        index: of each edge's node, [edges].
        weight: their gradients are summed in its type where that is wider than the rows'.
        is_sorted: whether the index ascends.
    """
    wide = rows.astype(jnp.result_type(rows, weight))
    taken = wide.at[index].get(indices_are_sorted=is_sorted, mode="promise_in_bounds")
    return taken.astype(rows.dtype)


def receive(rows: jax.Array, receiver: jax.Array, receivers: int) -> jax.Array:
    """Returns the sum of the rows of each receiver, which rows are sorted by, [receivers, ...]."""
    return jax.ops.segment_sum(
        rows, receiver, receivers, indices_are_sorted=True, mode="promise_in_bounds"
    )


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
