from dataclasses import replace

import pytest

from neuroconv.report import DendriteCost, Entry, against_linear, counting, finding

FIRST = Entry(
    label="granule",
    name="granule_convnet",
    parameters=100,
    neurons=10,
    mac_per_neuron=5.0,
    mflop_per_image=2.0,
    counters=("closed_form", "exact", "fvcore"),
    counter_remarks=(),
    dendrites=DendriteCost(60.0, 30.0, 40.0),
    accuracies={0: 0.90, 1: 0.92},
    mean=0.91,
    half_width=0.1,
    difference=None,
    difference_half_width=None,
    seconds_per_epoch=0.5,
    histories=[],
)


def rival(mean: float, half_width: float | None, *, dendrites: bool = False) -> Entry:
    return replace(
        FIRST,
        label="CNN",
        dendrites=FIRST.dendrites if dendrites else None,
        mflop_per_image=1.0,
        mean=mean,
        difference=mean - FIRST.mean,
        difference_half_width=half_width,
    )


def test_an_opponent_without_dendrites_that_wins_is_said_to_win() -> None:
    sentence = finding([FIRST, rival(0.95, 0.01)])
    assert sentence.startswith("CNN, which has no dendrites, is best in the mean with 95.00 %")
    assert "4.00 points above granule for 0.5 times its FLOPs" in sentence
    assert "+3.00 to +5.00 points, excludes zero" in sentence


def test_the_first_model_is_held_against_the_runner_up() -> None:
    far, near = replace(rival(0.5, 0.01), label="far"), rival(0.90, 0.02)
    sentence = finding([FIRST, far, near])
    assert sentence.startswith("granule is best in the mean with 91.00 %")
    assert "1.00 points above CNN for 2 times its FLOPs" in sentence
    assert "-1.00 to +3.00 points, includes zero: 2 seeds do not tell the two apart" in sentence


def test_an_interval_that_ends_at_zero_does_not_exclude_it() -> None:
    assert "includes zero" in finding([FIRST, replace(rival(0.95, 0.5), difference=0.5)])


def test_a_winner_with_dendrites_is_not_said_to_lack_them() -> None:
    assert "no dendrites" not in finding([FIRST, rival(0.95, 0.01, dendrites=True)])


def test_equal_means_are_a_tie() -> None:
    sentence = finding([FIRST, rival(FIRST.mean, 0.01)])
    assert sentence.startswith("granule and CNN tie in the mean at 91.00 %")
    assert "for 2 times the latter's FLOPs" in sentence


def test_one_seed_separates_nothing() -> None:
    alone = replace(FIRST, accuracies={0: 0.91}, half_width=None)
    assert finding([alone, rival(0.95, None)]).endswith("so this separates nothing.")


def test_a_single_model_is_compared_with_nothing() -> None:
    assert "compared with nothing" in finding([FIRST])


@pytest.mark.parametrize(
    ("linear", "sentence"),
    [
        (0.90, "All are above the linear classifier (90.00 %) in the mean."),
        (0.96, "None is above the linear classifier (96.00 %) in the mean."),
        (0.95, "None is above the linear classifier (95.00 %) in the mean."),
        (
            0.92,
            "Above the linear classifier (92.00 %) in the mean: CNN; not above it: granule.",
        ),
    ],
)
def test_who_is_above_the_linear_classifier(linear: float, sentence: str) -> None:
    assert against_linear([FIRST, rival(0.95, 0.01)], linear) == sentence


def test_counts_that_agree_are_said_once_for_all() -> None:
    (line,) = counting([FIRST, rival(0.95, 0.01)])
    assert line.startswith("Every model was counted by three counters")


def test_counts_that_differ_or_are_missing_are_said_for_each_model() -> None:
    differing = replace(FIRST, label="wrong", counter_remarks=("They differ: matmul: 1, 2.",))
    skipped = replace(FIRST, label="large", counters=("closed_form", "exact"))
    lines = counting([differing, skipped])
    assert lines == [
        "wrong: counted by 3 of 3 counters (closed_form, exact, fvcore). They differ: matmul: "
        "1, 2.",
        "large: counted by 2 of 3 counters (closed_form, exact).",
    ]
    assert counting([differing, FIRST])[-1].startswith("Every other model was counted by three")
