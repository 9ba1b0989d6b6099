"""The benchmark of a training step, on a network that takes no time."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import step
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.batches import Dataset
from jaxmat.data.tables import read_table

PROGRAM = """HloModule jit_differentiate

%fused_computation.1 (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %gather.1 = f32[8,4]{1,0} gather(%param_0), offset_dims={1}
}

%fused_computation.2 (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %dot.1 = f32[8,4]{1,0} dot(%param_0, %param_0)
}

ENTRY %main.9 (param_0: f32[8,4]) -> (f32[8,4], f32[]) {
  %param_0 = f32[8,4]{1,0} parameter(0)
  %a.1 = f32[8,4]{1,0} fusion(%param_0), calls=%fused_computation.1, metadata={op_name="jit(s)/jvp(CrystalNetwork)/trunk/bn_edges/mul"}
  %b.2 = f32[8,4]{1,0} fusion(%a.1), calls=%fused_computation.2, metadata={op_name="jit(s)/transpose(jvp(CrystalNetwork))/trunk/src_gate/dot_general"}
  %c.3 = (f32[8,4]{1,0}, s8[16]{0}) custom-call(%b.2), custom_call_target="__cublas$gemm"
  %d.4 = f32[8,4]{1,0} add(%b.2, %b.2), metadata={op_name="jit(s)/transpose(jvp(CrystalNetwork))/trunk/bn_nodes/add"}
  %e.5 = f32[8,4]{1,0} multiply(%d.4, %d.4), metadata={op_name="jit(s)/jvp(CrystalNetwork)/trunk/mul"}
  %f.6 = f32[8,4]{1,0} copy(%e.5)
  %g.7 = f32[] add(%f.6, %f.6), metadata={op_name="jit(s)/add"}
  ROOT %h.8 = (f32[8,4]{1,0}, f32[]) tuple(%f.6, %g.7)
}
"""  # noqa: E501 (as XLA writes it)


def test_operations_are_told_apart():
    operations = step.read_operations(PROGRAM)
    parts = {name: (found.part, found.backward) for name, found in operations.items()}
    assert {name: parts[name] for name in ("a.1", "b.2", "c.3", "d.4", "e.5", "f.6", "g.7")} == {
        "a.1": ("gather and scatter", False),
        "b.2": ("matrix products", True),
        "c.3": ("matrix products", False),
        "d.4": ("batch norm", True),
        "e.5": ("elementwise", False),
        "f.6": ("elementwise", False),
        "g.7": ("elementwise", False),
    }
    assert operations["b.2"].name.endswith("trunk/src_gate/dot_general, f32[8,4]")


def test_seconds_are_added_up_by_part():
    operations = step.read_operations(PROGRAM)
    parts = step.sum_parts({"a.1": 1.0, "b.2": 2.0, "c.3": 3.0, "unknown": 4.0}, operations)
    assert parts["gather and scatter"] == {"forward": 1.0, "backward": 0.0}
    assert parts["matrix products"] == {"forward": 3.0, "backward": 2.0}
    assert parts["elementwise"] == {"forward": 4.0, "backward": 0.0}


@pytest.fixture(scope="module")
def result() -> dict:
    structures = list(read_table("bundled:dielectric").structures[:4])
    graphs = list(build_graphs(structures, GraphSettings()))
    trunk = {"kind": "alignn", "width": 8, "embedding_width": 4}
    trunk |= {"alignn_layers": 1, "gcn_layers": 0}
    data = Dataset(graphs, np.arange(4.0)[:, None])
    computation = {"precision": "float32", "remat": False}
    return {"batch": 4} | step.measure(data, trunk, 4, computation)


@pytest.mark.slow
def test_a_step_is_taken_apart(result):
    parts = {part: both["forward"] + both["backward"] for part, both in result["parts"].items()}
    assert min(parts.values()) > 0
    assert result["parts"]["matrix products"]["backward"] > 0
    assert result["step_seconds"] > result["optimizer_seconds"] > 0
    assert 0 <= result["padding_share"] < 1
    assert len(result["costliest"]) == 5
    table = step.make_tables(result)
    assert all(f"| {part} " in table for part in (*step.PARTS, "optimizer"))


@pytest.mark.slow
def test_lower_precision_is_compared_with_single(result):
    half = result["precisions"]["bfloat16"]
    assert 0 < half["prediction_mean"] < half["prediction_max"] < 0.2
    assert 0 < half["gradient"] < 0.2
