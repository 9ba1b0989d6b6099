"""How programs start."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest
from absl import flags

from jaxmat.commands.program import parse_flags, return_freed_memory
from jaxmat.errors import UserError


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seconds=x", "--seconds is 'x'; it has to be a number >= 0.1"),
        ("--seconds=0", "--seconds is '0'; it has to be a number >= 0.1"),
        ("--number=1.5", "--number is '1.5'; it has to be a positive integer"),
        ("--resume=perhaps", "--resume is 'perhaps'; it has to be true or false"),
        ("--training.epochs=x", "--training.epochs is 'x'; it has to be a whole number from 1"),
        ("", "--model is missing. Where it is."),
        ("--seconds", "--seconds needs a value"),
        ("--modell=x", "Unknown command line flag 'modell'. Did you mean: model"),
    ],
)
def test_flags_are_refused_in_our_own_words(argument, message):
    """A number that is none was told as Python does: could not convert string to float."""
    values = flags.FlagValues()
    flags.DEFINE_float("seconds", 1.0, "", lower_bound=0.1, flag_values=values)
    flags.DEFINE_integer("number", 1, "", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("training.epochs", 1, "", flag_values=values)
    flags.DEFINE_bool("resume", False, "", flag_values=values)
    flags.DEFINE_string("model", None, "Where it is.", required=True, flag_values=values)
    given = [*(["--model=m"] if argument else []), argument]
    with pytest.raises(UserError) as error:
        parse_flags(["jaxmat", *filter(None, given)], values)
    assert message in str(error.value)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told to give memory back")
def test_freed_memory_is_returned_after_each_compilation(monkeypatch):
    trims: list[int] = []
    library = SimpleNamespace(malloc_trim=trims.append)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    return_freed_memory()
    program = jax.jit(lambda x: 3 * x + 1)
    before = len(trims)
    program(1.0)
    compiled = len(trims)
    program(2.0)
    assert before < compiled == len(trims)


def test_programs_are_kept_for_the_next_start(tmp_path):
    """Those of a small network, which take less than a second to compile, too."""
    code = """
import jax, jax.numpy as jnp
from jaxmat.commands.program import run_program

events = []

def main(argv):
    jax.monitoring.register_event_listener(lambda event, **kwargs: events.append(event))
    def program(x):
        for i in range(10):
            x = jnp.sort(jnp.tanh(x @ x + i))
        return x
    jax.jit(program)(jnp.ones((50, 50))).block_until_ready()
    print(events.count("/jax/compilation_cache/cache_hits"))

run_program(main, argv=["program"])
"""
    ours = {name: text for name, text in os.environ.items() if not name.startswith("JAX_")}
    hits = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=ours | {"XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert list((tmp_path / "jaxmat" / "xla").glob("jit_program*"))
    assert int(hits[0]) == 0 < int(hits[1])
