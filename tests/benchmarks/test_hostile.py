"""A short form of the hostile inputs, and that the benchmark sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hostile.__main__ import KINDS, MEGABYTES, SECONDS, Tried, _try, summary, try_kind
from benchmarks.hostile.commands import run
from benchmarks.hostile.trial import Trial, Wrong, mutations
from jaxmat.errors import UserError


@pytest.mark.slow
def test_there_are_at_least_400_inputs_of_different_names() -> None:
    names = {kind: [trial.name for trial in trials()] for kind, trials in KINDS.items()}
    assert sum(map(len, names.values())) >= 400
    assert not [kind for kind, each in names.items() if len(set(each)) < len(each)]


def test_mutations_are_the_same_each_time_and_differ() -> None:
    content = b"data_x\n_cell_length_a 5.0\n"
    found = mutations(content, 20)
    assert found == mutations(content, 20)
    assert len(set(found)) == 20 and content not in found


def test_whatever_goes_wrong_is_seen() -> None:
    def outcome(error: Exception | None) -> str:
        def attempt(folder: Path) -> None:
            if error:
                raise error

        return str(_try(Trial("x", attempt))["outcome"])

    assert outcome(None) == "handled"
    assert outcome(UserError("no")) == "refused"
    assert outcome(Wrong("5, not 4")) == "silently wrong: 5, not 4"
    assert "ZeroDivisionError" in outcome(ZeroDivisionError("x"))
    assert outcome(UserError("x" * 5000)) == "a message that nobody reads"
    slow = Tried("files", "x", "refused", SECONDS + 1, 0.0)
    large = Tried("files", "y", "handled", 0.0, MEGABYTES + 1)
    assert slow.problem and large.problem and slow.problem in summary([slow, large])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["predict", "embed", "suggest", "inspect", "convert"])
def test_what_is_changed_in_trials_of_commands_is_all_that_is_wrong(
    verb: str, tmp_path: Path
) -> None:
    """The model of `suggest` was refused, whatever else was wrong."""
    run(verb, tmp_path, {"labelled": ""} if verb == "suggest" else {}, [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_in_short_form(kind: str) -> None:
    tried = try_kind(kind, share=0.1)
    assert len(tried) >= 3
    assert not [(one.name, one.problem) for one in tried if one.problem]
