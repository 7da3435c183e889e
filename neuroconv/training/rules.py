"""The setting `rule`: how a model's updates come about, by autograd or by a rule of its own."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from neuroconv.core.checks import expected_one_of
from neuroconv.learning import RULES, Rule, make_rule
from neuroconv.training.tables import ConfigError

RuleSetting = str | Mapping[str, Any]


def rule_options(rule: RuleSetting) -> tuple[Any, dict[str, Any]]:
    """Returns the name of a rule, and its options."""
    options = {"kind": rule} if isinstance(rule, str) else dict(rule)
    return options.pop("kind", None), options


def check_rule(header: str, rule: RuleSetting, others: Mapping[str, object]) -> None:
    """Raises a ConfigError for an unknown rule, or one beside settings of backpropagation alone.

    Args:
        header: of the table, for messages.
        others: those settings, and whether they are in use.
    """
    kind, options = rule_options(rule)
    if kind not in RULES:
        raise ConfigError(
            f"{header} rule = {rule!r}: {expected_one_of(str(kind), RULES)}, or a table with such "
            "a kind"
        )
    if kind == "backprop" and options:
        raise ConfigError(f'{header} rule = {rule!r}: expected "backprop", which has no options')
    for setting, present in others.items():
        if kind != "backprop" and present:
            raise ConfigError(
                f"{header} rule = {kind!r} with {setting}: expected one of the two, since that is "
                "for backprop alone"
            )


def make_learning_rule(model: nn.Module, rule: RuleSetting, seed: int = 0) -> Rule | None:
    """Returns the rule, which freezes all parameters that it does not train; None for autograd.

    A rule that draws weights, as feedback, draws them by the run's seed if it is given no other.

    Raises:
        ConfigError: options that it does not have, or a model that it cannot train.
    """
    kind, options = rule_options(rule)
    if "seed" in inspect.signature(RULES[kind]).parameters:
        options.setdefault("seed", seed)
    try:
        return None if kind == "backprop" else make_rule(model, kind, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[train] rule = {rule!r}: {error}") from error
