"""Transfer learning of material properties with crystal graph networks in JAX.

    model = jaxmat.fit(structures, labels, unit="GPa")
    model.predict(others)
    model.save("models/hardness")
    jaxmat.load("models/hardness")

The types of these names are in __init__.pyi. They are imported when they are first used: parts of
the package work without JAX.
"""

import importlib

__version__ = "0.1.0"

_PLACES = {
    "Forecast": "jaxmat.bundles.predict",
    "TrainedModel": "jaxmat.bundles.trained",
    "UserError": "jaxmat.errors",
    "fit": "jaxmat.experiments.fit",
    "load": "jaxmat.bundles.trained",
}
__all__ = [*_PLACES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    """Imports a name that the package exports."""
    if name not in _PLACES:
        raise AttributeError(f"module 'jaxmat' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
