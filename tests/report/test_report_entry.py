"""The sentences of a report: who wins, at what cost, and what the seeds can tell."""

from dataclasses import replace
from typing import Any

import pytest

from neuroconv.report import DendriteCost, Entry, against_linear, counting, finding, findings
from tests.report.entries import ENTRY

CNN = replace(ENTRY, difference=0.04, difference_half_width=0.01)
FIRST = replace(
    CNN, label="granule", dendrites=DendriteCost(60.0, 30.0, 40.0), mflop_per_image=2.0,
    mean=0.91, difference=None, difference_half_width=None,
)  # fmt: skip
NEAR = replace(CNN, mean=0.90, difference=-0.01, difference_half_width=0.02)
FAR = replace(CNN, label="far", mean=0.5, difference=-0.41)
ONE_SEED = replace(CNN, difference_half_width=None)
FAILED: dict[str, Any] = {"failures": {7: "epoch 2, step 9: loss nan"}}
NONE: dict[str, Any] = {
    "failures": dict.fromkeys((3, 5, 7), "loss nan"), "accuracies": {}, "mean": None,
    "half_width": None, "difference": None, "difference_half_width": None,
}  # fmt: skip


# What is compared, and the sentence.
FINDINGS: dict[str, tuple[list[Entry], str]] = {
    "a model without dendrites wins": ([FIRST, CNN],
        "CNN, which has no dendrites, is best in the mean with 95.00 % over 2 seeds, 4.00 points "
        "above granule for 0.5 times its FLOPs; the paired 95 % interval, +3.00 to +5.00 points, "
        "excludes zero."),
    "a model with dendrites wins": ([FIRST, replace(CNN, dendrites=FIRST.dendrites)],
        "CNN is best in the mean with 95.00 % over 2 seeds, 4.00 points above granule for 0.5 "
        "times its FLOPs; the paired 95 % interval, +3.00 to +5.00 points, excludes zero."),
    "the first wins: compared with the runner-up": ([FIRST, FAR, NEAR],
        "granule is best in the mean with 91.00 % over 2 seeds, 1.00 points above CNN for 2 times "
        "its FLOPs; the paired 95 % interval, -1.00 to +3.00 points, includes zero: 2 seeds do not "
        "tell the two apart."),
    "an interval that ends at zero includes it": (
        [replace(FIRST, mean=0.45), replace(CNN, difference=0.5, difference_half_width=0.5)],
        "CNN, which has no dendrites, is best in the mean with 95.00 % over 2 seeds, 50.00 points "
        "above granule for 0.5 times its FLOPs; the paired 95 % interval, +0.00 to +100.00 points, "
        "includes zero: 2 seeds do not tell the two apart."),
    "equal means": ([FIRST, replace(CNN, mean=FIRST.mean, difference=0.0)],
        "granule and CNN tie in the mean at 91.00 % over 2 seeds, the former for 2 times the "
        "latter's FLOPs; the paired 95 % interval, -1.00 to +1.00 points, includes zero: 2 seeds "
        "do not tell the two apart."),
    "one seed": ([replace(FIRST, accuracies={0: 0.91}, half_width=None), ONE_SEED],
        "CNN, which has no dendrites, is best in the mean with 95.00 % over 2 seeds, 4.00 points "
        "above granule for 0.5 times its FLOPs; one seed gives no interval, so this separates "
        "nothing."),
    "alone": ([FIRST],
        "granule reaches 91.00 %; it was compared with nothing."),
    "seeds failed: the pairs are others than the means'": (
        [FIRST, replace(CNN, **FAILED, difference=-0.04, pairs=1)],
        "CNN (2 of 3 seeds, 1 failed), which has no dendrites, is best in the mean with 95.00 % "
        "over 2 seeds, 4.00 points above granule for 0.5 times its FLOPs; the paired 95 % "
        "interval, of 1 seed, -5.00 to -3.00 points, excludes zero."),
    "a single model finished": ([replace(FIRST, **NONE), CNN, replace(FAR, **NONE)],
        "CNN reaches 95.00 %; no other model finished a seed."),
    "the first failed: the others have no paired difference": (
        [replace(FIRST, **NONE), replace(CNN, difference=None), replace(FAR, difference=None)],
        "CNN, which has no dendrites, is best in the mean with 95.00 % over 2 seeds, 45.00 points "
        "above far for as many FLOPs; without a paired difference, this separates nothing."),
    "all failed": ([replace(FIRST, **NONE), replace(CNN, **NONE)],
        "No seed finished, so that there is no accuracy."),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "sentence"), FINDINGS.values(), ids=FINDINGS)
def test_finding(entries: list[Entry], sentence: str) -> None:
    assert finding(entries) == sentence


@pytest.mark.parametrize(
    ("linear", "sentence"),
    [
        (0.90, "All are above the linear classifier (90.00 %) in the mean."),
        (0.96, "None is above the linear classifier (96.00 %) in the mean."),
        (0.95, "None is above the linear classifier (95.00 %) in the mean."),
        (0.92, "Above the linear classifier (92.00 %) in the mean: CNN; not above it: granule."),
    ],
)
def test_who_is_above_the_linear_classifier(linear: float, sentence: str) -> None:
    assert against_linear([FIRST, CNN], linear) == sentence


def test_a_model_of_which_no_seed_finished_is_not_below_the_linear_classifier() -> None:
    none = replace(CNN, **NONE)
    score = "the linear classifier (90.00 %) in the mean"
    assert against_linear([FIRST, none], 0.9) == f"granule is above {score}; without a mean: CNN."
    assert against_linear([none], 0.9) == f"None is above {score}; without a mean: CNN."


def test_the_comparison_named_beforehand_comes_first_and_the_others_by_their_verdict() -> None:
    worse = replace(NEAR, label="near", verdict="worse", p=0.04)
    named = replace(CNN, primary=True, verdict="better", p=0.0012, parameters=617, axons=None)
    sentences = findings([FIRST, worse, named, replace(worse, label="last")], None)
    assert sentences[:2] == [
        "The comparison that was named beforehand: CNN against granule is better, +4.00 points (95 "
        "% interval +3.00 to +5.00, p = 0.0012), with 0.5 times its parameters, 1 times its "
        "multiply-adds.",
        "The others are exploratory, and not corrected for their number. Worse: near, last.",
    ]
    (alone, best) = findings([FIRST, replace(worse, verdict="equal")], None)
    assert alone == (
        "All comparisons with granule are exploratory, and not corrected for their number. Equal: "
        "near."
    )
    assert best == finding([FIRST, worse])


def test_each_seed_that_failed_says_why() -> None:
    best, *rest = findings([FIRST, replace(CNN, **FAILED)], 0.9)
    assert best.startswith("CNN (2 of 3 seeds, 1 failed), which")
    assert rest == [
        "CNN, seed 7 failed: epoch 2, step 9: loss nan.",
        "All are above the linear classifier (90.00 %) in the mean.",
    ]


def test_counts_that_differ_or_are_missing_are_said_for_each_model() -> None:
    (agreement,) = counting([FIRST, CNN])
    assert agreement.startswith("Every model was counted by three counters")
    differing = replace(FIRST, label="wrong", counter_remarks=("They differ: matmul: 1, 2.",))
    skipped = replace(FIRST, label="large", counters=("closed_form", "exact"))
    assert counting([differing, skipped]) == [
        "wrong: counted by 3 of 3 counters (closed_form, exact, fvcore). They differ: matmul: "
        "1, 2.",
        "large: counted by 2 of 3 counters (closed_form, exact).",
    ]
    assert counting([differing, FIRST])[-1].startswith("Every other model was counted by three")
