from __future__ import annotations

import numpy as np
import pytest

from jaxmat.errors import UserError
from jaxmat.transfer.trees import Rule, match_names, summarize, transfer

SOURCE = {
    "params": {
        "trunk": {"layer": {"kernel": np.ones((2, 3)), "bias": np.arange(3.0)}},
        "heads_gap": {"out": {"kernel": np.full((3, 1), 5.0)}},
    },
    "batch_stats": {"trunk": {"norm": {"mean": np.full(3, 7.0)}}},
}
TARGET = {
    "params": {
        "trunk": {"layer": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}},
        "heads_energy": {"out": {"kernel": np.zeros((3, 1))}},
    },
    "batch_stats": {"trunk": {"norm": {"mean": np.zeros(3)}}},
}
TRUNK = Rule(r"(.*)/trunk/(.*)", r"\1/trunk/\2")
CONTINUED = Rule(r"params/heads_energy/(.*)", r"params/heads_gap/\1")
NEW = Rule(r"params/heads_energy/.*", None)


def test_every_leaf_is_copied_where_the_rules_say() -> None:
    result, report = transfer(SOURCE, TARGET, [TRUNK, CONTINUED])
    np.testing.assert_array_equal(result["params"]["heads_energy"]["out"]["kernel"], 5.0)
    np.testing.assert_array_equal(result["params"]["trunk"]["layer"]["bias"], [0, 1, 2])
    np.testing.assert_array_equal(result["batch_stats"]["trunk"]["norm"]["mean"], 7.0)
    assert {fate.action for fate in report} == {"copied"}
    assert sum(fate.size for fate in report) == 15


def test_a_new_head_keeps_its_first_values_and_the_old_one_is_reported() -> None:
    result, report = transfer(SOURCE, TARGET, [TRUNK, NEW], dropped=["params/heads_.*"])
    np.testing.assert_array_equal(result["params"]["heads_energy"]["out"]["kernel"], 0.0)
    fates = {fate.name: fate.action for fate in report}
    assert fates["params/heads_energy/out/kernel"] == "re-initialised"
    assert fates["params/heads_gap/out/kernel"] == "dropped"
    assert len(fates) == 5
    assert "dropped:    1 leaves,         3 numbers  params/heads_gap/out" in summarize(report)


def test_the_first_rule_that_matches_decides() -> None:
    result, _ = transfer(SOURCE, TARGET, [NEW, TRUNK, CONTINUED], dropped=["params/heads_gap/.*"])
    np.testing.assert_array_equal(result["params"]["heads_energy"]["out"]["kernel"], 0.0)


@pytest.mark.parametrize(
    ("rules", "dropped", "reason"),
    [
        ([TRUNK], ["params/heads_gap/.*"], "params/heads_energy/out/kernel: no rule"),
        ([TRUNK, NEW], [], "params/heads_gap/out/kernel: of the source, not used"),
        (
            [TRUNK, Rule(r"params/heads_energy/(.*)", r"params/heads_typo/\1")],
            [],
            "the source has no params/heads_typo/out/kernel",
        ),
        (
            [TRUNK, Rule(r"params/heads_energy/.*", "params/trunk/layer/kernel")],
            ["params/heads_gap/.*"],
            r"is float64\[3, 1\] here, but float64\[2, 3\] in the source",
        ),
    ],
)
def test_what_does_not_fit_is_named(rules: list[Rule], dropped: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        transfer(SOURCE, TARGET, rules, dropped)


def test_names_are_matched_from_their_beginnings() -> None:
    mask = match_names(SOURCE["params"], ["trunk/layer/k", "heads_"])
    assert mask == {
        "trunk": {"layer": {"kernel": True, "bias": False}},
        "heads_gap": {"out": {"kernel": True}},
    }
    with pytest.raises(UserError, match="starts with layer"):
        match_names(SOURCE["params"], ["layer"])
