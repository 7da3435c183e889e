"""The speed of learning rules: steps are measured in turns, and memory is what operators hold."""

from pathlib import Path

import pytest
import torch

from tests.scripts import loaded

speed = loaded(Path(__file__).parents[1] / "experiments" / "local_learning" / "speed.py")


def test_a_row_for_each_network_rule_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = {
        "cells": {"name": "purkinje_classifier", "purkinje": {"tree": {"sheet": (4, 3)}}},
        "MLP": {"name": "mlp", "width": 5},
    }
    monkeypatch.setattr(speed, "NETWORKS", networks)
    rows = speed.measure(2, 0.001)
    pairs = [(name, rule) for name, row in networks.items() for rule in speed.RULES[row["name"]]]
    expected = [(*pair, batch) for pair in pairs for batch in speed.BATCHES]
    assert [(row["network"], row["rule"], row["batch"]) for row in rows] == expected
    assert all(len(row["samples_per_s_turns"]) == 2 and row["samples_per_s"] > 0 for row in rows)
    assert all(row["lowest_joules"] < row["highest_joules"] for row in rows)
    assert speed.table(rows).count("\n") == 1 + len(rows)


def test_the_peak_is_what_a_step_holds_at_once() -> None:
    def step() -> None:
        first = torch.zeros(1000)
        second = first + 1
        del first
        second.mul_(2)

    assert speed.peak_bytes(step) >= 2 * 4000
    assert speed.peak_bytes(lambda: torch.zeros(1000).zero_()) < 2 * 4000


def test_an_optimiser_counts_its_operations_a_parameter() -> None:
    assert speed.flop_per_parameter(torch.optim.SGD) == 2
    assert speed.flop_per_parameter(torch.optim.AdamW) > 8
