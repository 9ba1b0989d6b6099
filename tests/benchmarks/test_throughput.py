"""Turns, rows and table of the throughput benchmark, with programs that only pretend."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import throughput
from benchmarks.throughput import ALIGNN, COGN, PEER, Answers, Job
from jaxmat.batch import Shape, batch_crystals
from jaxmat.crystals.graph import GraphSettings, build_graphs
from jaxmat.data.tables import read_table
from jaxmat.errors import UserError
from jaxmat.models.network import build_network, complete_options

TRAIN = Job("train", 16, canonical=True)
GRAPHS = Job("graphs", None, canonical=True)


class Pretender:
    """Says the next of some answers; an answer that is None ends it."""

    def __init__(self, name: str, answers: list[Any], log: list[str]) -> None:
        self.about, self._name, self._answers, self._log = {"name": name}, name, answers, log

    def turn(self) -> dict[str, Any]:
        self._log.append(self._name)
        if (answer := self._answers.pop(0)) is None:
            raise UserError("It has stopped.")
        return answer

    def peak_bytes(self) -> int:
        return 7


def long(turns: int) -> list[dict[str, Any]]:
    """Answers that fill a turn each."""
    return [{"n": n, "seconds": 10.0} for n in range(turns)]


def answers(seconds: list[float], **numbers: Any) -> Answers:
    turn = {"structures": 100, "rows": [300, 2000, 20_000], "waiting_seconds": 0.0, **numbers}
    return Answers({}, [{**turn, "seconds": second} for second in seconds], 1_500_000_000)


def matmul() -> Answers:
    return Answers({}, [{"seconds": 2.0, "flops": 6e11}], 0)


def matrix_products(jaxpr: Any) -> float:
    """Operations in the matrix products of a program and of those that it calls."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (inner, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * np.prod(equation.outvars[0].aval.shape) * np.prod([left[i] for i in inner])
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                total += matrix_products(value.jaxpr)
    return total


@pytest.mark.parametrize("kind", [COGN, ALIGNN])
def test_forward_flops_are_the_matrix_products_of_the_network(kind):
    structure = read_table("bundled:dielectric").structures[0]
    graphs = list(build_graphs([structure], GraphSettings()))
    trunk = complete_options({"kind": kind})
    network = build_network(trunk, {"x": {"kind": "linear"}})
    for shape in (Shape(2, 64, 512, 4096), Shape(2, 65, 513, 4097)):
        batch = batch_crystals(graphs, np.zeros((1, 1)), shape)
        variables = jax.eval_shape(lambda batch=batch: network.init(jax.random.key(0), batch))
        head = 2 * trunk["width"] * shape.crystals
        program = jax.make_jaxpr(network.apply)(variables, batch)
        expected = throughput.forward_flops(kind, np.array(shape[1:])) + head
        assert matrix_products(program.jaxpr) == expected


def test_programs_take_turns_whose_first_round_does_not_count():
    log: list[str] = []
    programs = {name: Pretender(name, long(4), log) for name in "ab"}
    found = throughput.take_turns(programs, turns=2)
    assert "".join(log) == "aabbaabb"
    assert found["a"] == Answers({"name": "a"}, long(4)[1::2], 7)


def test_a_turn_lasts_long_enough_and_adds_up():
    short = [
        {"seconds": 1.5, "structures": 10, "rows": [1, 2, 3], "shapes": n} for n in (1, 2, 3, 3)
    ]
    found = throughput.take_turns({"a": Pretender("a", long(1) + short, [])}, turns=1)
    expected = {"seconds": 4.5, "structures": 30, "rows": [3, 6, 9], "shapes": 3}
    assert found["a"].turns == [expected]


def test_a_peer_that_stops_is_left_out_and_the_others_go_on():
    log: list[str] = []
    programs = {
        PEER: Pretender("p", [*long(2), None], log),
        "ours": Pretender("o", long(6), log),
    }
    assert list(throughput.take_turns(programs, turns=3)) == ["ours"]
    assert "".join(log) == "ppoopoooo"


def test_a_program_of_our_own_that_stops_ends_the_run():
    with pytest.raises(UserError):
        throughput.take_turns({"ours": Pretender("o", [None], [])}, turns=2)


def test_rows_hold_medians_and_the_ratio_to_the_peer():
    ours = answers([1.0, 9.0, 2.0], padded_rows=[1, 1, 22_000], compile_seconds=3.0, shapes=8)
    theirs = answers([30.0, 10.0, 20.0])
    ours_row, peer_row = throughput.make_rows(
        TRAIN, {"matmul": matmul(), "alignn complete_shells": ours, PEER: theirs}
    )
    assert (ours_row["program"], peer_row["program"]) == ("alignn complete_shells", PEER)
    assert ours_row["structures_per_second"] == 50
    assert ours_row["ratio"] == 10 and peer_row["ratio"] == 1
    assert ours_row["rows"] == [3, 20, 200]
    assert ours_row["padding"] == pytest.approx(1.1) and "padding" not in peer_row
    assert ours_row["peak_bytes"] == 1_500_000_000
    flops = 3 * throughput.forward_flops(ALIGNN, np.array([300, 2000, 20_000]))
    assert ours_row["matmul_share"] == pytest.approx(flops / 2.0 / 3e11)
    assert json.loads(json.dumps([ours_row, peer_row])) == [ours_row, peer_row]


def test_prediction_is_one_pass_and_graphs_have_no_network():
    programs = {"matmul": matmul(), "reference": answers([2.0])}
    (train,) = throughput.make_rows(TRAIN, programs)
    (infer,) = throughput.make_rows(TRAIN._replace(task="infer"), programs)
    (graphs,) = throughput.make_rows(GRAPHS, programs)
    assert train["matmul_share"] == pytest.approx(3 * infer["matmul_share"])
    assert "matmul_share" not in graphs and "peak_bytes" not in graphs
    assert train["ratio"] is None


def test_the_table_leaves_blank_what_is_not_there():
    programs = {"matmul": matmul(), "reference": answers([2.0])}
    rows = [
        {"set": "dc", **row}
        for job in (GRAPHS, TRAIN)
        for row in throughput.make_rows(job, programs)
    ]
    header, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in throughput.make_table(rows).splitlines()
    )
    graphs, train = (dict(zip(header, line, strict=True)) for line in lines)
    assert graphs["task"] == "graphs" and train["task"] == "train 16"
    assert graphs["structures/s"] == train["structures/s"] == "50.00"
    assert train["times the peer"] == train["padded / real"] == graphs["peak memory, GB"] == ""
    assert train["peak memory, GB"] == "1.50"


def test_each_batch_size_is_trained_and_predicted_with():
    found = throughput.jobs(["graphs", "train", "infer"], [16, 64], canonical=False)
    assert [(job.task, job.batch_size) for job in found] == [
        ("graphs", None),
        *(("train", 16), ("infer", 16), ("train", 64), ("infer", 64)),
    ]
    assert not any(job.canonical for job in found)
    assert throughput.jobs(["train"], [16], canonical=True) == [TRAIN]


def test_a_sample_is_always_the_same_and_no_larger_than_its_table(tmp_path):
    table = {"index": [0, 1, 2], "columns": ["structure"], "data": []}
    first = read_table("bundled:dielectric").structures[:3]
    table["data"] = [[crystal.as_dict()] for crystal in first]
    (tmp_path / "t.json").write_text(json.dumps(table))
    names = [
        [crystal.formula for crystal in throughput.sample(tmp_path / "t.json", number)]
        for number in (2, 2, 3)
    ]
    assert names[0] == names[1] == names[2][:2]
    assert len(set(names[2])) == 3
    with pytest.raises(UserError, match="3 rows"):
        throughput.sample(tmp_path / "t.json", 4)
