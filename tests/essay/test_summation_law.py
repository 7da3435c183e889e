"""The law of summation: its task, its laws' common knee, and the learned one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from neuroconv.layers import DendriticSummation
from tests.scripts import loaded

RUN = loaded(Path(__file__).parents[2] / "experiments" / "summation_law" / "run.py")


def test_features_tell_the_class_together_alone() -> None:
    inputs, labels = RUN.splits("conjunction", 2000)[2]
    classes = torch.nn.functional.one_hot(labels)
    table = torch.corrcoef(torch.cat([inputs, classes], 1).T)
    assert table[:12, 12:].abs().max() < 4 / len(labels) ** 0.5
    clean = (inputs[:, :6].argmax(1) + inputs[:, 6:].argmax(1)) % 6
    assert (clean == labels).float().mean() > 0.7  # both together do


@pytest.mark.parametrize(("exponent", "law"), [(1.0, "linear"), (2.0, "supralinear")])
def test_a_learned_power_is_the_law_of_its_exponent(exponent: float, law: str) -> None:
    knee, rate = 0.3, torch.rand(3, 5, 1, 4)
    power = RUN.Power(knee)
    torch.nn.init.constant_(power.log_exponent, np.log(exponent))
    options = {} if law == "linear" else {"knee": knee, "exponent": exponent}
    expected = DendriticSummation(law, scale=1 / 4, **options)(rate)  # type: ignore[arg-type]
    torch.testing.assert_close(power(rate), expected)


def test_with_one_dendrite_a_law_is_an_activation_function() -> None:
    training, inputs = RUN.splits("conjunction", 60)[0], torch.randn(7, 12)
    layer = RUN.trained("ordinary", "supralinear", 1e-3, training, 2, RUN.SIZES["test"], 0)[0]
    weighted = torch.nn.functional.linear(inputs, layer.dendrites.weight, layer.dendrites.bias)
    square = weighted.relu() ** 2 / layer.summation.knee
    expected = (layer.gain * square + layer.bias).relu()
    torch.testing.assert_close(layer(inputs), expected)


@pytest.mark.parametrize("law", [*RUN.LAWS, RUN.LEARNED])
def test_before_training_every_law_varies_as_much_as_the_sum(law: str) -> None:
    training = RUN.splits("conjunction", 60)[0]
    layers = RUN.trained("neuron", law, 0.0, training, 2, RUN.SIZES["test"], 0)[:2]
    sent = training[0][:50]  # the batch before training
    for layer in layers:
        sums, sent = layer.dendritic_rates(sent).mean(-1).squeeze(2), layer(sent)
        torch.testing.assert_close(sent.std(0).mean(), sums.std(0).mean())


def test_ranks_are_spearman_s() -> None:
    rng, laws = np.random.default_rng(0), (*RUN.LAWS, RUN.LEARNED)
    flags = rng.random((2, 2, len(laws), 3, 8)) < 0.5  # few images, so that gains are tied
    rows = RUN.Rows(
        {"unit": unit, "task": task, "law": law, "seed": s, "right": flags[u, int(task), i, s]}
        for u, unit in enumerate(RUN.DENDRITES)
        for task in "01"
        for i, law in enumerate(laws)
        for s in range(3)
    )
    gains = flags.mean(-1)[:, :, 1:] - flags.mean(-1)[:, :, :1]  # (units, tasks, laws, S)
    for seed, correlation in enumerate(RUN.rank_correlation(rows)):
        pairs = (unit[..., seed].ravel() for unit in gains)
        assert correlation == pytest.approx(spearmanr(*pairs).statistic)


@pytest.mark.parametrize(
    ("exponents", "turned"),
    [((2.0, 4.0, 0.8), (2.0, 4.0, 0.8)), ((2.0, 0.5), (0.5, 0.5))],  # together, and apart
)
def test_a_common_direction_is_that_of_the_other_seeds(
    exponents: tuple[float, ...], turned: tuple[float, ...]
) -> None:
    rows = [
        {"task": "t", "law": RUN.LEARNED, "seed": seed, "exponents": [exponent]}
        for seed, exponent in enumerate(exponents)
    ]
    assert RUN.turned(RUN.Rows(rows), "t") == pytest.approx(np.log(turned))


def test_a_seed_s_best_law_is_that_of_the_other_seeds() -> None:
    validation = {"linear": (0.9, 0.1, 0.5), "supralinear": (0.3, 0.8, 0.6)}
    rows = RUN.Rows(
        {"task": "t", "law": law, "seed": seed, "validation": share, "right": [law == "linear"]}
        for law, shares in validation.items()
        for seed, share in enumerate(shares)
    )
    best = [order[0] for order in RUN.ranked(rows, "t", tuple(validation))]
    assert best == ["supralinear", "linear", "supralinear"]  # of 0.7, 0.7 and 0.55 on average
    assert RUN.answers(rows, "t", best).tolist() == [[0], [1], [0]]
