"""The training loop of the experiments: its batches, its optimisation, its choice of a rate."""

import torch
import torch.nn.functional as F
from torch import nn

from neuroconv.essay.networks import best_rate, fit, passes, right


def test_passes_leave_a_rest_out_and_show_few_images_at_once() -> None:
    shown = passes(10, 4, 3, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in shown] == [4] * 6
    assert all(len({*first.tolist(), *second.tolist()}) == 8
               for first, second in zip(shown[::2], shown[1::2], strict=True))  # fmt: skip
    assert [len(batch) for batch in passes(3, 4, 2, torch.Generator())] == [3, 3]


def test_fit_descends_with_a_rate_that_falls_in_a_line() -> None:
    inputs, labels = torch.randn(6, 3, dtype=torch.double), torch.tensor([0, 1, 0, 1, 1, 0])
    network = nn.Linear(3, 2, dtype=torch.double)
    weight, bias = (p.detach().clone().requires_grad_() for p in network.parameters())
    batches = [torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5])]
    fit(network, (inputs, labels), batches, torch.optim.SGD(network.parameters(), 0.3))
    for batch, rate in zip(batches, (0.3, 0.2, 0.1), strict=True):
        loss = F.cross_entropy(inputs[batch] @ weight.T + bias, labels[batch])
        slopes = torch.autograd.grad(loss, (weight, bias))
        weight, bias = (p - rate * slope for p, slope in zip((weight, bias), slopes, strict=True))
    torch.testing.assert_close(network.weight, weight, atol=1e-12, rtol=0)
    torch.testing.assert_close(network.bias, bias, atol=1e-12, rtol=0)
    expected = (inputs @ weight.T + bias).argmax(1) == labels
    assert right(network, inputs, labels).tolist() == expected.tolist()


def test_a_rate_that_diverges_is_not_chosen() -> None:
    def train(rate: float) -> nn.Module:
        network = nn.Linear(1, 2, bias=False)
        network.weight.data = torch.tensor([[0.0], [float("nan") if rate > 1 else rate]])
        return network

    assert best_rate((2.0, 0.1, 0.5), train, (torch.ones(1, 1), torch.tensor([1]))) == 0.5
