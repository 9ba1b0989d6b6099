"""Transfer learning of material properties with crystal graph networks in JAX."""

__version__ = "0.1.0"
