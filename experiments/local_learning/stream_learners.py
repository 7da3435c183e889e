"""Learners of a stream: each predicts a batch, then learns from it, and does not see it again.

Shapes: B batch, F inputs, K outputs or classes, M cells of a code.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroconv.learning import make_rule, softmax_error, squared_error
from neuroconv.zoo import create_model

Setting = tuple[str, float]
OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
ACTIVE = 0.1  # the share of a sparse code's cells that fire


class SparseCode(nn.Module):
    """Frozen granule cells (B, F) -> (B, M): random weights to `claws` inputs each; a share
    `ACTIVE` of them, the most excited, fire. Mean 0 and variance 1 over the cells."""

    def __init__(self, inputs: int, cells: int, claws: int, seed: int) -> None:
        super().__init__()
        draw, claws = torch.Generator().manual_seed(seed), min(claws, inputs)
        presynaptic = torch.rand(cells, inputs, generator=draw).topk(claws).indices
        weight = torch.randn(cells, claws, generator=draw) * claws**-0.5
        self.weight = torch.zeros(cells, inputs).scatter_(1, presynaptic, weight)
        self.winners = round(cells * ACTIVE)

    def forward(self, inputs: Tensor) -> Tensor:
        potential = inputs @ self.weight.t()
        rates = (potential - potential.topk(self.winners + 1).values[:, -1:]).relu()
        return nn.functional.layer_norm(rates, rates.shape[1:])


class Network:
    """A network of the zoo behind a frozen code, with a rule and an optimiser: its trained
    `parameters`, and the `signals` for each sample that tell a unit its error.

    All rules but backpropagation run under torch.inference_mode(), and record no graph. `options`
    are the rule's.
    """

    def __init__(self, model: Any, rule: str, setting: Setting, code: Any, **options: Any) -> None:
        self.rule, self.code, backprop = make_rule(model, rule, **options), code, rule == "backprop"
        trained = [*self.rule.trained()]
        self.optimizer = OPTIMIZERS[setting[0]](trained, lr=setting[1])
        self.parameters = sum(parameter.numel() for parameter in trained)
        units = sum(m.out_features for m in model.modules() if isinstance(m, nn.Linear))
        self.signals = units if backprop else self.rule.teaching_signals
        self.mode: Any = nullcontext if backprop else torch.inference_mode

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the outputs (B, K) from before it learns from these targets."""
        fibres = self.code(inputs)[:, None, None]
        with self.mode():
            outputs = self.rule(fibres, targets)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return outputs.clone()

    @torch.no_grad()
    def predict(self, inputs: Tensor) -> Tensor:
        parts = inputs.split(500)
        return torch.cat([self.rule.model(self.code(rows)[:, None, None]) for rows in parts])


class Ridge:
    """Ridge regression on all samples so far, exact, by recursive least squares in float64: it
    keeps M^2 numbers (Haykin, Adaptive Filter Theory, chapter 10; batches by Woodbury)."""

    signals = None

    def __init__(self, inputs: int, outputs: int, strength: float, code: nn.Module) -> None:
        self.code = code
        self.parameters = (inputs + 1) * outputs + (inputs + 1) * (inputs + 2) // 2
        self.inverse = torch.eye(inputs + 1, dtype=torch.float64) / strength
        self.weight = torch.zeros(inputs + 1, outputs, dtype=torch.float64)

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        rows = self._rows(inputs)
        outputs, projected = rows @ self.weight, rows @ self.inverse
        gain = torch.linalg.solve(torch.eye(len(rows)) + projected @ rows.t(), projected)
        self.weight += gain.t() @ (targets - outputs)
        self.inverse -= projected.t() @ gain
        return outputs.float()

    def predict(self, inputs: Tensor) -> Tensor:
        return (self._rows(inputs) @ self.weight).float()

    def _rows(self, inputs: Tensor) -> Tensor:
        return nn.functional.pad(self.code(inputs).double(), (0, 1), value=1.0)


class ClassMeans:
    """Means of the classes, and with `shrinkage` their common covariance, from one pass.

    Without it the class of the nearest mean; with it streaming linear discriminant analysis (Hayes
    and Kanan 2020, doi:10.1109/CVPRW50498.2020.00118). The covariance S within classes is shrunk to
    (1 - shrinkage) S + shrinkage x mean variance x identity, as in scikit-learn.
    """

    signals = None

    def __init__(self, inputs: int, classes: int, shrinkage: float, code: nn.Module) -> None:
        self.code, self.shrinkage = code, shrinkage
        self.counts = torch.zeros(classes, dtype=torch.float64)
        self.sums = torch.zeros(classes, inputs, dtype=torch.float64)
        self.products = torch.zeros(inputs, inputs, dtype=torch.float64)
        self.parameters = self.sums.numel() + bool(shrinkage) * inputs * (inputs + 1) // 2

    def __call__(self, inputs: Tensor, targets: Tensor) -> None:
        rows = self.code(inputs).double()
        members = nn.functional.one_hot(targets, len(self.counts)).double()  # (B, K)
        self.counts += members.sum(0)
        self.sums += members.t() @ rows
        if self.shrinkage:
            self.products += rows.t() @ rows

    def predict(self, inputs: Tensor) -> Tensor:
        means = directions = self.sums / self.counts.unsqueeze(1)
        shares = self.counts / self.counts.sum()
        if self.shrinkage:
            within = self.products / self.counts.sum() - means.t() @ (shares.unsqueeze(1) * means)
            sphere = torch.eye(len(within)).double() * within.diagonal().mean()
            directions = torch.linalg.solve(within.lerp(sphere, self.shrinkage), means.t()).t()
        offsets = shares.log() * bool(self.shrinkage) - 0.5 * (directions * means).sum(1)
        return self.code(inputs).double() @ directions.t() + offsets


class SeenSoftmax:
    """The softmax error over the classes seen so far: others have neither error nor share."""

    def __init__(self, classes: int) -> None:
        self.seen = torch.zeros(classes, dtype=torch.bool)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.seen[labels] = True
        return softmax_error(logits.masked_fill(~self.seen, -torch.inf), labels)


@dataclass(frozen=True)
class Shape:
    """Sizes of a task's learners, whose networks have about as many trained numbers."""

    fibres: int
    outputs: int
    cells: int  # for each output, 1 or 2
    sheet: tuple[int, int]  # synapses of a branch, branches of a cell
    gain: float  # outputs for a mean rate of 1
    claws: int  # inputs of a granule cell of the sparse code
    encode: nn.Module  # variables to fibres
    variables: int | None = None  # how many it codes

    def build(self, kind: str, rule: str, inputs: str, setting: Setting, seed: int) -> Any:
        """Returns a learner that reads "raw" variables, "fibres" or a sparse "code" of these."""
        torch.manual_seed(seed)
        share = self.cells * (self.sheet[0] * self.sheet[1] + self.sheet[1] + 1)
        size, code, outputs = self.fibres, self.encode, self.outputs
        if inputs == "raw":
            size, code = self.variables or size, nn.Identity()
        elif inputs == "code":
            size = share - 1
            code = nn.Sequential(code, SparseCode(self.fibres, size, self.claws, seed))
        if kind in ("ridge", "means"):
            return {"ridge": Ridge, "means": ClassMeans}[kind](size, outputs, setting[1], code)
        keywords: dict[str, Any] = {"image_shape": (1, 1, size), "num_classes": outputs}
        if kind == "purkinje_classifier":
            keywords |= {"cells_per_class": self.cells, "normalise": False, "gain": self.gain}
            keywords["purkinje"] = {"tree": {"sheet": self.sheet}}
        if kind == "mlp":
            keywords["width"] = round(outputs * (share - 1) / (size + 1 + outputs))
        options: dict[str, Any] = {"seed": seed} if rule == "direct_feedback" else {}
        if rule != "perceptron":
            options["error"] = SeenSoftmax(outputs) if self.cells == 1 else squared_error
        return Network(create_model(kind, **keywords), rule, setting, code, **options)
