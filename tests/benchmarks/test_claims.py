"""Claims are fair: paired, corrected for their number, with intervals; labels saved likewise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.published import OF_ANY, Mark
from benchmarks.results.claims import (
    Comparison,
    compare,
    holm,
    labels_needed,
    labels_saved,
    paired_p,
)
from benchmarks.results.page import (
    claims,
    saved,
    worse,
)
from benchmarks.results.rows import scaled

from .results_cases import of_trials, result


def test_p_values_are_those_of_scipy_and_hold_together() -> None:
    rng = np.random.default_rng(0)
    ours, base = rng.uniform(1, 2, (2, 5))
    expected = stats.ttest_rel(np.log(ours), np.log(base)).pvalue
    assert paired_p(ours, base) == pytest.approx(expected)
    assert paired_p([2.0, 3.0], [2.0, 3.0]) == 1 and math.isnan(paired_p([1.0], [2.0]))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_a_claim_needs_an_interval_without_zero_and_holds_among_others() -> None:
    base = of_trials([4.0, 4.2, 3.9, 4.1, 4.0], method="base")
    close = of_trials([3.9, 4.3, 3.8, 4.2, 3.9], method="close")
    clear = of_trials([2.0, 2.2, 1.9, 2.1, 1.9], method="clear")
    faint = of_trials([3.8, 4.1, 3.9, 3.9, 3.9], method="faint")
    single = of_trials([1.0], method="single")
    rows = [*base, *close, *clear, *faint, *single]

    def verdicts(*methods: str, main: bool = False) -> list[str]:
        comparisons = [Comparison("few_labels", method, "base", main) for method in methods]
        return [one.verdict for one in compare(rows, comparisons, {})]

    assert verdicts("close", "clear") == ["no difference shown", "better"]
    assert verdicts("single") == ["open: 1 of 4 trials"]
    alone = verdicts("faint", main=True)
    together = verdicts("faint", "close", "clear", main=True)
    assert alone == ["better"] and together[0].startswith("not beyond chance")
    assert together[2] == "better"
    listed = claims(
        compare(rows, [Comparison("few_labels", m, "base", True) for m in ("clear", "close")], {})
    )
    assert "clear against base" in listed and "**better**" in listed and "close" not in listed
    backwards = compare(rows, [Comparison("few_labels", "base", "clear")], {})
    assert backwards[0].verdict == "worse" and "base against clear" in worse(backwards)
    assert worse(compare(rows, [Comparison("few_labels", "clear", "base")], {})) == "None so far."


def test_no_claim_rests_on_pz() -> None:
    rows = [
        row
        for method, mae in (("ours", 0.1), ("base", 0.9))
        for row in of_trials([mae, 1.01 * mae, 0.99 * mae], target="pz", method=method)
    ]
    (found,) = compare(rows, [Comparison("few_labels", "ours", "base", main=True)], {})
    assert found.verdict == "no claim rests on this set" and math.isnan(found.adjusted)


def test_published_errors_are_paired_with_the_same_lists() -> None:
    marks = {("dc", 100, OF_ANY): Mark("fe 100000", {2: 0.04, 3: 0.05})}
    rows = of_trials([2.0, 2.1, 1.9])
    (found,) = compare(rows, [Comparison("few_labels", "ours", OF_ANY)], marks)
    expected = np.sqrt(scaled("dc", 2.1) / 0.04 * scaled("dc", 1.9) / 0.05) - 1
    assert found.trials == 2 and found.change.change == pytest.approx(expected)


def test_seeds_of_a_trial_count_once() -> None:
    rows = [
        result(method=method, trial=trial, seed=seed, mae=mae * (1 + 0.1 * seed))
        for method, mae in (("ours", 2.0), ("base", 4.0))
        for trial in (1, 2)
        for seed in (0, 1, 2)
    ]
    (found,) = compare(rows, [Comparison("few_labels", "ours", "base")], {})
    assert found.trials == 2 and found.change.change == pytest.approx(-0.5)


def test_labels_needed_on_a_power_law() -> None:
    curve = {n: 5 * n**-0.5 for n in (10, 100, 800)}
    for n in (10, 37, 100, 800):
        assert labels_needed(curve, 5 * n**-0.5) == pytest.approx(n)
    assert labels_needed(curve, 5.0) == 0 and math.isinf(labels_needed(curve, 0.01))


def test_labels_saved_are_those_of_a_shifted_curve() -> None:
    rows = [
        row
        for n in (10, 100, 1000)
        for method, factor in (("ours", 2.0), ("base", 1.0))
        for row in of_trials(
            [noise * 5 * (factor * n) ** -0.5 for noise in (1.0, 1.1, 0.9)],
            method=method,
            labels=n,
        )
    ]
    found = labels_saved(rows, [Comparison("few_labels", "ours", "base")], {})
    assert [one.labels for one in found] == [10, 100, 1000]
    for one in found[:2]:
        assert one.ratio == pytest.approx(2)
        assert one.low == pytest.approx(2) == one.high  # both have the same noise
    assert math.isinf(found[2].ratio) and found[2].most == 1  # its curve ends there
    few = [row for row in rows if row.trial != 3]
    assert math.isnan(labels_saved(few, [Comparison("few_labels", "ours", "base")], {})[0].low)


def test_ends_of_labels_saved_are_those_of_all_resamples() -> None:
    """On power laws a ratio is that of two means, squared; all 3,125 resamples are gone through."""
    rng = np.random.default_rng(3)
    both = rng.uniform(0.7, 1.3, 5)  # hard and easy trials
    ours, base = both * rng.uniform(0.8, 1.2, (2, 5)) * np.array([[1.0], [1.4]])
    rows = [
        row
        for n in (10, 100, 1000)
        for method, factors in (("ours", ours), ("base", base))
        for row in of_trials((5 * factors * n**-0.5).tolist(), method=method, labels=n)
    ]
    (_, found, _) = labels_saved(rows, [Comparison("few_labels", "base", "ours")], {})
    drawn = np.array(list(itertools.product(range(5), repeat=5)))
    ratios = (ours[drawn].mean(axis=1) / base[drawn].mean(axis=1)) ** 2
    assert found.ratio == pytest.approx((ours.mean() / base.mean()) ** 2)
    for end, share in ((found.low, 0.025), (found.high, 0.975)):
        least, most = np.quantile(ratios, [share - 0.01, share + 0.01])
        assert least <= end <= most
    assert found.high / found.low > 1.1  # the noise of the two differs
    # Trials drawn for each method by itself would not do: theirs go up and down together.
    apart = stats.bootstrap(
        (ours, base),
        lambda a, b, axis: (a.mean(axis=axis) / b.mean(axis=axis)) ** 2,
        paired=False,
        method="percentile",
        random_state=0,
    ).confidence_interval
    assert apart.low < 0.98 * found.low and apart.high > 1.02 * found.high


def test_labels_saved_stand_beside_the_verdict_of_the_same_comparison() -> None:
    rows = [
        row
        for n in (10, 100)
        for method, factor in (("clear", 1.0), ("close", 1.9), ("base", 2.0))
        for row in of_trials(
            [noise * factor * n**-0.5 for noise in (1.0, 1.1 if factor == 1.9 else 1.0, 0.9, 1.0)],
            method=method,
            labels=n,
        )
    ]
    asked = [Comparison("few_labels", method, "base") for method in ("clear", "close")]
    # A main claim or not, it is the same comparison.
    compared = compare(rows, [one._replace(main=True) for one in asked], {})
    found = labels_saved(rows, asked, {}, compared)
    verdicts = {(one.comparison.method, one.labels): one.verdict for one in found}
    assert verdicts["clear", 100] == "better" and verdicts["close", 10] == "no difference shown"
    assert "| better " in saved(found) and "| no difference shown " in saved(found)
    # Where the two are not compared, nothing is said.
    assert {one.verdict for one in labels_saved(rows, asked, {})} == {""}
    (line, *_) = saved(labels_saved(rows, asked, {})).splitlines()[2:]
    assert line.split("|")[-2].strip() == "–"
