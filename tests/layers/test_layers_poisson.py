"""Waiting periods, the branch of release and spike counts against what defines them."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuroconv.layers.poisson import DropoutState, PoissonDropout, PoissonSpikes
from neuroconv.layers.release import ReleaseOrWait

MODES: tuple[Any, ...] = ("wait", "redraw", "independent")
STEPS_MS = {1: 1000 / 30, 2: 10.0, 4: 5.0}  # by the steps that a sleep of 20 ms then takes
KINDS = (*MODES, *map(str, STEPS_MS))  # dropout by its mode, releases by the steps of a sleep


def fired_steps(mode: str, steps: int, draw: Callable[[int], int]) -> tuple[int, ...]:
    """One neuron by its mode: 1 where it fires, else 0; it draws by the step. The slow twin."""
    fires, step = [0] * steps, 0
    while step < steps:
        k = draw(step)
        if mode == "wait":
            step += k  # silent
            if step < steps:
                fires[step] = 1
            step += 1
        elif mode == "redraw":
            if k == 0:
                fires[step] = 1
            step += max(k, 1)
        else:
            fires[step] = int(k == 0)
            step += 1
    return tuple(fires)


def released_steps(
    fires: tuple[bool, ...], wait_steps: int, dropped: Callable[[], bool]
) -> tuple[int, ...]:
    """The essay's branch for one neuron, step by step."""
    release, asleep = [], 0
    for fire in fires:
        if asleep > 0:
            asleep -= 1
            release.append(0)
        elif fire and not dropped():
            release.append(1)
        else:
            asleep = wait_steps - 1
            release.append(0)
    return tuple(release)


def law_of(
    probabilities: list[float], steps: int, run: Callable[[Callable[..., int]], tuple[int, ...]]
) -> dict[tuple[int, ...], float]:
    """Probability of each pattern of firing, by enumeration of every draw of a short window."""
    terms: dict[tuple[int, ...], list[float]] = {}
    for draws in itertools.product(range(len(probabilities)), repeat=steps):
        left = iter(draws)
        pattern = run(lambda *_, left=left: next(left))
        terms.setdefault(pattern, []).append(math.prod(probabilities[k] for k in draws))
    return {pattern: math.fsum(values) for pattern, values in terms.items()}


def stage_and_law(
    kind: str, mean_wait: float, steps: int
) -> tuple[Any, dict[tuple[int, ...], float]]:
    """A layer, and the law of its patterns; of a release for neurons that always fire."""
    p = [math.exp(-mean_wait) * mean_wait**k / math.factorial(k) for k in range(steps)]
    if kind in MODES:
        # Draws of `steps` or more all mean silence to the end: their tail is one outcome.
        law = law_of([*p, 1 - math.fsum(p)], steps, lambda draw: fired_steps(kind, steps, draw))
        return PoissonDropout(mean_wait, kind), law
    sleep, fires = int(kind), (True,) * steps
    law = law_of([p[0], 1 - p[0]], steps, lambda draw: released_steps(fires, sleep, draw))
    return ReleaseOrWait(mean_wait, 20.0, STEPS_MS[sleep]), law


def assert_follows(law: dict[tuple[int, ...], float], rates: Tensor) -> None:
    """Every pattern as often as the law says: within five binomial standard errors."""
    rows, counts = (rates > 0).flatten(0, 1).int().unique(dim=0, return_counts=True)
    observed = dict(zip(map(tuple, rows.tolist()), counts.tolist(), strict=True))
    trials = rates[..., 0].numel()
    assert set(observed) <= {pattern for pattern, p in law.items() if p > 0}
    for pattern, p in law.items():
        sigma = math.sqrt(trials * p * (1 - p))
        assert abs(observed.get(pattern, 0) - trials * p) < 5 * sigma + 1, pattern


def assert_keeps_the_mean(layer: Any, *further: int, device: str = "cpu") -> None:
    """At each step 40,000 cells, on any further axes, average one within five standard errors."""
    shape = (20, 2_000 // math.prod(further), 5, *further)
    rates = layer(torch.ones(shape, dtype=torch.float64, device=device)).cpu()
    probability = torch.tensor(layer.firing_probability(5), dtype=torch.float64)
    sigma = torch.sqrt((1 - probability) / probability / 40_000)
    assert ((rates.transpose(0, 2).flatten(1).mean(1) - 1).abs() < 5 * sigma).all()


# --- both layers: patterns, means, stretches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean_wait", [0.0, 0.1, 0.5, 2.0, 20.0])
def test_firing_probability_equals_the_enumeration_of_all_draws(
    mean_wait: float, kind: str
) -> None:
    steps = 5 if kind in MODES else 9
    layer, law = stage_and_law(kind, mean_wait, steps)
    expected = [math.fsum(p for pattern, p in law.items() if pattern[t]) for t in range(steps)]
    np.testing.assert_allclose(layer.firing_probability(steps), expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mean_wait", [0.2, 0.5, 1.5])
def test_layers_fire_in_the_patterns_of_the_definition(mean_wait: float, kind: str) -> None:
    layer, law = stage_and_law(kind, mean_wait, 5)
    assert_follows(law, layer(torch.ones(100, 1_000, 5)))
    assert_keeps_the_mean(layer)


# --- waiting periods


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", ["neuron", "unit"])
def test_a_step_is_silent_or_scaled_by_its_own_probability(mode: Any, scope: Any) -> None:
    layer = PoissonDropout(0.5, mode, scope)
    if scope == "unit":
        assert_keeps_the_mean(layer, 4, 5)
    rates = layer(torch.ones(4, 500, 5, dtype=torch.float64))
    for step, probability in enumerate(layer.firing_probability(5)):
        values = rates[:, :, step].unique()
        torch.testing.assert_close(values, values.new_tensor([0, 1 / probability]))


def test_identity_in_eval_and_without_waiting() -> None:
    rate, before = torch.randn(2, 3, 5), torch.get_rng_state()
    for layer in (PoissonDropout(0.5).eval(), PoissonDropout(0.0)):
        assert torch.equal(layer(rate), rate)
        assert torch.equal(layer(rate[..., 0]), rate[..., 0])
        state = DropoutState(torch.zeros(2, 3), torch.ones(1))
        assert layer.stream(rate, None)[1] is None
        assert layer.stream(rate, state)[1] is state
    assert torch.equal(torch.get_rng_state(), before)


def test_gradient_is_the_scaled_mask() -> None:
    for layer in (LAYERS["wait"](), LAYERS["redraw"](), LAYERS["activity"](), LAYERS["branch"]()):
        rate = torch.rand(2, 30, 5, requires_grad=True)
        output = layer(rate)
        output.sum().backward()
        assert (rate.grad == 0).any()
        torch.testing.assert_close(rate.grad * rate.detach(), output.detach())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mean_wait", [50.0, 87.3])
def test_the_longest_waits_stay_finite(mean_wait: float, mode: Any) -> None:
    layer = PoissonDropout(mean_wait, mode)
    assert min(layer.firing_probability(200)) > 0
    rates = layer(torch.ones(10, 50, 200))
    assert rates.isfinite().all()
    assert (rates > 0).any() == (mode == "wait")  # exp(-50) does not happen, a wait of 50 ends


def test_scope_removes_the_neuron_or_each_unit() -> None:
    rate = torch.ones(4, 50, 5, 3, 4)
    for mode in MODES:
        whole = PoissonDropout(0.5, mode)(rate) > 0
        assert torch.equal(whole, whole[..., :1, :1].expand_as(whole))
        units = (PoissonDropout(0.5, mode, "unit")(rate) > 0).flatten(3)
        assert (units.any(-1) & ~units.all(-1)).float().mean() > 0.9  # 12 units seldom agree


# --- waits that pass in active steps alone

COMES_AND_GOES = (0, 1, 1, 0, 0, 1, 0, 1, 1, 1)  # five steps of activity and more


def gates_of_activity(
    mode: str, rates: list[float], uniform: list[float], mean_wait: float
) -> list[float]:
    """Factors of one neuron's rates: the silent steps are cut out, and pass as they are."""
    left = [number for number, rate in zip(uniform, rates, strict=True) if rate]

    def draw(step: int) -> int:
        terms = (math.exp(-mean_wait) * mean_wait**k / math.factorial(k) for k in itertools.count())
        return next(k for k, share in enumerate(itertools.accumulate(terms)) if left[step] < share)

    fires = fired_steps(mode, len(left), draw)
    shares = PoissonDropout(mean_wait, mode).firing_probability(len(left))  # type: ignore[arg-type]
    gates = iter([fire / share for fire, share in zip(fires, shares, strict=True)])
    return [next(gates) if rate else 1.0 for rate in rates]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", ["neuron", "unit"])
def test_waits_of_active_steps_equal_the_loop_without_silent_ones(mode: Any, scope: Any) -> None:
    layer = PoissonDropout(1.0, mode, scope, "activity")
    rate = torch.rand(3, 8, 12, 2, dtype=torch.float64) * (torch.rand(3, 8, 12, 1) < 0.6)
    cells = (3, 8, 2) if scope == "unit" else (3, 8)
    rate.requires_grad_()
    torch.manual_seed(7)
    result = layer(rate)
    (grad,) = torch.autograd.grad(result.sum(), rate)
    torch.manual_seed(7)
    uniform = torch.rand(12, *cells)
    for b, n, u in np.ndindex(3, 8, 2):
        numbers = uniform[:, b, n, u] if scope == "unit" else uniform[:, b, n]
        rates = rate[b, n, :, u]
        gates = rate.new_tensor(gates_of_activity(mode, rates.tolist(), numbers.tolist(), 1.0))
        torch.testing.assert_close(grad[b, n, :, u], gates, rtol=1e-6, atol=0)
        torch.testing.assert_close(result[b, n, :, u], rates * gates, rtol=1e-6, atol=0)


@pytest.mark.parametrize("mode", MODES)
def test_active_steps_follow_the_law_and_keep_their_mean(mode: Any) -> None:
    """By the other clock waits run out, or begin, in silence: the first active step is no start."""
    rate = torch.tensor(COMES_AND_GOES, dtype=torch.float64).expand(100, 1_000, -1)
    active = torch.tensor(COMES_AND_GOES) > 0
    layer, law = stage_and_law(mode, 0.5, 5)
    layer.clock = "activity"
    rates = layer(rate)
    assert not rates[..., ~active].any()
    assert_follows(law, rates[..., active][..., :5])
    probability = torch.tensor(layer.firing_probability(6), dtype=torch.float64)
    sigma = torch.sqrt((1 - probability) / probability / rate[..., 0].numel())
    assert ((rates[..., active].mean((0, 1)) - 1).abs() < 5 * sigma).all()
    if mode != "independent":
        layer.clock = "steps"
        with pytest.raises(AssertionError):
            assert_follows(law, layer(rate)[..., active][..., :5])


LAYERS: dict[str, Callable[[], Any]] = {
    "wait": lambda: PoissonDropout(0.5),
    "independent": lambda: PoissonDropout(0.5, "independent"),
    "redraw": lambda: PoissonDropout(0.5, "redraw"),
    "unit": lambda: PoissonDropout(0.5, "redraw", "unit"),
    "activity": lambda: PoissonDropout(0.5, clock="activity"),
    "activity_unit": lambda: PoissonDropout(1.0, "redraw", "unit", "activity"),
    "gate": lambda: ReleaseOrWait(),
    "branch": lambda: ReleaseOrWait(0.5, 20.0, 5.0),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1, 1, 1), (3, 4), (2, 0, 5)])
def test_chunks_are_the_window(name: str, chunks: tuple[int, ...]) -> None:
    layer, rate = LAYERS[name](), torch.rand(3, 20, 7, 2) - 0.2
    rate[:, ::2, 1:5] = 0  # some neurons fall silent
    for training in (True, False):
        layer.train(training)
        torch.manual_seed(5)
        whole = layer(rate)
        torch.manual_seed(5)
        state, parts = None, []
        for chunk in rate.split(chunks, 2):
            part, state = layer.stream(chunk, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=1e-6)
        assert torch.equal(torch.cat(parts, 2) != 0, whole != 0)


@pytest.mark.parametrize("name", ["wait", pytest.param("activity", marks=pytest.mark.slow)])
def test_a_compiled_stream_does_not_recompile_with_its_state(name: str) -> None:
    layer, chunks = LAYERS[name](), torch.rand(2, 30, 12).split(2, 2)
    growing = 2 if name == "activity" else 1  # twice, to see that a table's length varies
    torch._dynamo.reset()
    compiled = torch.compile(layer.stream, fullgraph=True, backend="aot_eager")
    results = []
    for run in (layer.stream, compiled):
        torch.manual_seed(2)
        part, state = run(chunks[0].contiguous(), None)
        parts = [part]
        for count, chunk in enumerate(chunks[1:]):
            stance: Any = "default" if count < growing else "fail_on_recompile"
            with torch.compiler.set_stance(stance):
                part, state = run(chunk.contiguous(), state)
            parts.append(part)
        results.append(torch.cat(parts, 2))
    torch.testing.assert_close(*results)


# --- release or wait


@pytest.mark.parametrize("wait_steps", STEPS_MS)
@pytest.mark.parametrize("mean_wait", [0.0, 0.2, 2.0])
def test_releases_of_a_long_run(wait_steps: int, mean_wait: float) -> None:
    """A cycle of mean length p + (1 - p) s releases p times."""
    p = math.exp(-mean_wait)
    last = ReleaseOrWait(mean_wait, 20.0, STEPS_MS[wait_steps]).firing_probability(2_000)[-1]
    assert last == pytest.approx(p / (p + (1 - p) * wait_steps), rel=1e-9)


@pytest.mark.parametrize("wait_steps", STEPS_MS)
def test_release_of_a_rate_that_comes_and_goes_equals_a_simulation(wait_steps: int) -> None:
    fires = (True, False, True, True, False, True, True, True)
    rng, trials = np.random.default_rng(3), 10_000
    layer = ReleaseOrWait(0.5, 20.0, STEPS_MS[wait_steps])
    rate = torch.tensor(fires).float().expand(100, 200, -1)
    observed = (layer(rate) > 0).double().mean((0, 1)).numpy()
    rows = [released_steps(fires, wait_steps, lambda: rng.poisson(0.5) >= 1) for _ in range(trials)]
    simulated = np.mean(rows, 0)
    sigma = np.sqrt(simulated * (1 - simulated) * (1 / trials + 1 / 20_000))
    assert (np.abs(observed - simulated) <= 5 * sigma).all()
    assert (observed[[1, 4]] == 0).all()


@pytest.mark.parametrize("wait_steps", STEPS_MS)
def test_eval_equals_the_loop_without_dropout(wait_steps: int) -> None:
    layer = ReleaseOrWait(0.5, 20.0, STEPS_MS[wait_steps]).eval()
    rate = torch.randn(3, 20, 11, dtype=torch.float64)
    state, result = torch.get_rng_state(), layer(rate)
    expected = torch.zeros_like(rate)
    for b, n in np.ndindex(3, 20):
        fires = tuple((rate[b, n] > 0).tolist())
        release = released_steps(fires, wait_steps, lambda: False)
        expected[b, n] = rate[b, n] * torch.tensor(release)
    assert torch.equal(result, expected)
    assert torch.equal(torch.get_rng_state(), state)
    without = ReleaseOrWait(0.0, 20.0, STEPS_MS[wait_steps])
    assert torch.equal(without(rate), expected)  # nothing to drop in training either
    if wait_steps == 1:
        assert torch.equal(result, rate.relu())
    assert layer(rate[..., None]).squeeze(-1).equal(expected)


@pytest.mark.parametrize(
    ("wait_ms", "step_ms", "steps"),
    [
        (20.0, 1000 / 30, 1),
        (20, 20, 1),
        (20.0, 5.0, 4),
        (20.0, 6.0, 4),
        (0.0, 5.0, 1),
        (2.1, 0.7, 3),  # the quotient is a little more
        (0.3, 0.1, 3),
    ],
)
def test_the_sleep_in_steps(wait_ms: float, step_ms: float, steps: int) -> None:
    layer = ReleaseOrWait(0.5, wait_ms, step_ms)
    assert layer.wait_steps == steps
    rate = torch.tensor([0.0] + [1.0] * 12).view(1, 1, -1)  # silent at 0, then asleep
    assert layer.eval()(rate).flatten().tolist() == [0.0] * steps + [1.0] * (13 - steps)


def test_releases_that_never_happen_are_silent_and_finite() -> None:
    layer = ReleaseOrWait(87.3, 2_000.0, 1.0)
    assert layer.firing_probability(600)[-1] == 0  # less than a float64 holds
    rates = layer(torch.ones(2, 3, 600))
    assert torch.equal(rates, torch.zeros_like(rates))


# --- spikes


@pytest.mark.parametrize("dt", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_counts_follow_the_poisson_distribution(dt: float, dtype: torch.dtype) -> None:
    layer, trials = PoissonSpikes(dt), 40_000
    for rate in (0.0, 0.5, 4.0):
        counts = layer(torch.full((100, 400), rate, dtype=dtype)).double()
        assert torch.equal(counts, counts.round())
        mean = rate * dt
        for k in range(8):
            p = math.exp(-mean) * mean**k / math.factorial(k)
            observed = (counts == k).double().mean().item()
            assert abs(observed - p) <= 5 * math.sqrt(p * (1 - p) / trials) + 1 / trials
        assert abs(counts.mean().item() - mean) <= 5 * math.sqrt(mean / trials)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gradient_passes_straight_through(dtype: torch.dtype) -> None:
    rate = torch.tensor([0.0, 0.3, 2.0, 900.0], dtype=dtype, requires_grad=True)
    upstream = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=dtype)
    for training in (True, False):
        layer = PoissonSpikes(0.25).train(training)
        (grad,) = torch.autograd.grad(layer(rate), rate, upstream)
        assert torch.equal(grad, 0.25 * upstream)


def test_a_negative_rate_counts_as_none() -> None:
    rate = torch.tensor([-2.0, -0.1, 0.5], requires_grad=True)
    for training in (True, False):
        counts = PoissonSpikes().train(training)(rate)
        assert counts[:2].tolist() == [0, 0]
        (grad,) = torch.autograd.grad(counts.sum(), rate)
        assert grad.tolist() == [0, 0, 1]


# --- errors


@pytest.mark.parametrize("make", [PoissonDropout, ReleaseOrWait])
@pytest.mark.parametrize("mean_wait", [-0.5, math.inf, math.nan, 1e4, 87.4, "0.5"])
def test_bad_mean_wait(make: Any, mean_wait: Any) -> None:
    message = f"mean_wait={mean_wait!r}; expected a finite number .* 0 to 87.34: .*float32"
    with pytest.raises(ValueError, match=message):
        make(mean_wait)


ONES = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoissonDropout(0.5, "redo"), "mode='redo'; .*one of wait,"),
        (lambda: PoissonDropout(clock="ms"), "clock='ms'; expected one of steps, act"),
        (lambda: PoissonDropout(scope="cell"), "scope='cell'; expected one of neuron,"),
        (lambda: PoissonSpikes(0), "dt=0; expected a finite number above 0"),
        (lambda: ReleaseOrWait(wait_ms=-1), "wait_ms=-1; expected a finite number of at least 0"),
        (lambda: ReleaseOrWait(step_ms=0), "step_ms=0; expected a finite number above 0"),
        (lambda: PoissonDropout()(torch.ones(7)), r"\(7,\); expected floats of \(batch,"),
        (lambda: ReleaseOrWait()(torch.ones(7, 3)), r"\(7, 3\); expected floats of"),
        (
            lambda: PoissonDropout().stream(
                torch.ones(2, 3, 4), PoissonDropout().stream(torch.ones(2, 4, 4))[1]
            ),
            r"state.waiting has shape \(2, 4\); expected \(2, 3\) as the rate",
        ),
        *(
            (
                lambda a=a, b=b: LAYERS[a]().stream(ONES, LAYERS[b]().stream(ONES)[1]),
                f"state is of a stage of another clock, expected clock='{clock}'; pass the state",
            )
            for a, b, clock in (("activity", "wait", "activity"), ("gate", "activity", "steps"))
        ),
        (lambda: PoissonDropout()(ONES.long()), "rate of torch.int64 .* expected floats of"),
        (lambda: PoissonSpikes()(ONES.long()), "rate is torch.int64; expected floating point"),
        (
            lambda: ReleaseOrWait().stream(
                torch.ones(2, 3, 4, 5), ReleaseOrWait().stream(torch.ones(2, 3, 4))[1]
            ),
            r"state.waiting has shape \(2, 3\); expected \(2, 3, 5\) as the rate",
        ),
    ],
)
def test_other_errors(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.gpu
@pytest.mark.parametrize("name", LAYERS)
def test_cuda_keeps_the_mean(name: str) -> None:
    assert_keeps_the_mean(LAYERS[name](), device="cuda")
