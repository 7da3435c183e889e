"""The pictures of the walk: one of the whole way and one of each step, all 800 pixels wide."""

from collections.abc import Callable

import torch
from drawing import Drawing
from small_cell import (
    AXONS,
    DENDRITES,
    FOLLOWED,
    INHIBITORY,
    NOW,
    REST,
    SITES,
    STEP_MS,
    STEPS,
    Walk,
)
from torch import Tensor

from neuroconv.layers import DendriticSummation

WIDTH = 800
HIT = FOLLOWED // (SITES // 4)  # the dendrite that the followed axon meets, 4 sites each
FIRST = FOLLOWED % (SITES // 4) * 4  # the first of its sites there


def rows(sheet: Tensor, step: int = NOW) -> list[list[float]]:
    """Returns a sheet (1, 1, T, P, D) at one step, one row for each dendrite, sites across."""
    return sheet[0, 0, step].mT.tolist()


def dendrite(sheet: Tensor) -> list[list[float]]:
    """Returns the dendrite that the burst meets, one row for each site, time steps across."""
    return sheet[0, 0, :, :, HIT].mT.tolist()


def line(stage: Tensor) -> list[float]:
    """Returns (1, 1, T) as a list."""
    return stage[0, 0].tolist()


def on_sheet(weights: Tensor) -> list[list[float]]:
    """Returns (1, S) weights, one row for each dendrite: synapses fill dendrite by dendrite."""
    return weights.view(DENDRITES, SITES).tolist()


def top(*stages: Tensor) -> float:
    return max(float(stage.abs().max()) for stage in stages)


_PANELS: dict[str, Callable[[Walk], str]] = {}
Panel = Callable[[Drawing, Walk], None]


def panel(name: str, height: int, title: str = "", module: str = "") -> Callable[[Panel], Panel]:
    """Registers a picture, whose docstring describes it; a number in its name is the step's."""

    def register(draw: Panel) -> Panel:
        def svg(w: Walk) -> str:
            d = Drawing(WIDTH, height, " ".join((draw.__doc__ or "").split()).removesuffix("."))
            if title:
                d.title(int(name.partition("_")[0]), title, module)
            draw(d, w)
            return d.svg()

        _PANELS[name] = svg
        return draw

    return register


@panel("overview", 530)
def whole_way(d: Drawing, w: Walk) -> None:
    """One small Purkinje cell from left to right: the burst of an axon, synapses on six
    dendrites drawn as heat maps, the dendrites' rates, the soma, and the cell's own axon
    with its waiting periods, each labelled with its module.
    """
    left, wide, first_y, pitch = 152, 16, 142, 55
    d.text(16, 30, "From one axon to the next", size=16, bold=True)
    d.note(
        16,
        50,
        f"one small Purkinje cell as it ran: its dendrites at step {NOW}, and small bars "
        f"over {STEPS} steps of {STEP_MS:.1f} ms",
    )

    # Dendrites: synapses, below them the normalised potential, below that the sites' charge.
    weights = w.cell.synapses.effective_weight()
    charge = w.lifted - REST
    strongest = top(charge[0, 0, NOW])
    for number in range(DENDRITES):
        y = float(first_y + number * pitch)
        d.heat(left, y, [rows(charge)[number]], (wide, 17), strongest)
        for site in lifted_sites(w, number):
            d.line([(left + site * wide, y + 21), (left + (site + 1) * wide, y + 21)], "ink", 3)
        heights = rows(w.normal)[number]
        d.bars(left, y, heights, (wide * SITES, 17), w.cell.threshold_norm.threshold, "up")
        for site in range(SITES):
            weight = float(weights[0, number * SITES + site])
            _synapse(d, left + (site + 0.5) * wide, y - 24, weight)

    # The followed axon: its burst, its way, its four terminals.
    way = first_y + HIT * pitch - 33
    d.text(16, way - 62, f"axon {FOLLOWED}", size=13, bold=True)
    d.bars(16, way - 8, w.activity[0, FOLLOWED].tolist(), (116, 44), 1.1, "up")
    start = left + FIRST * wide
    d.line([(16, way), (start + 3.5 * wide, way)], "up", 3)
    for site in range(4):
        x = start + (site + 0.5) * wide
        d.line([(x, way), (x, way + 6)], "up", 2.5)
    d.label(16, way + 26, 1, "activity")
    d.note(43, way + 43, "rates of axons")

    # What the signs mean, and the modules of the sheet.
    bottom = first_y + DENDRITES * pitch - 16
    legend = bottom - 108
    for row, words in enumerate(("excites", "inhibits", "0 to threshold", "charge")):
        middle = legend + row * 20
        d.note(44, middle + 4, words)
        if row < 2:
            _synapse(d, 28, middle, 1.0 - 2 * row)
    d.bars(16, legend + 46, (0.4, 0.8, 1.0), (24, 13), 1, "up")
    d.heat(16, legend + 55, [[0.2, 0.5, 1.0]], (8, 11), 1)
    d.label(left, 98, 2, "SparseSynapses")
    d.label(left + 146, 98, 3, "ThresholdNorm")
    d.label(left, bottom + 10, 4, "DendriticConv")
    d.note(left + 27, bottom + 27, "charge spreads,")
    d.note(left + 27, bottom + 42, "lingers")
    d.label(left + 146, bottom + 10, 5, "DendriticSpike")
    d.note(left + 173, bottom + 27, "lifts neighbours")
    d.note(left + 173, bottom + 42, "(underlined)")

    # Dendritic rates, and what runs on to the soma.
    right, soma_x, soma_y = left + SITES * wide, 544, first_y + 2.5 * pitch + 8
    for number, rate in enumerate(w.dendritic[0, 0, NOW].tolist()):
        y = first_y + number * pitch + 8.5
        d.line([(right, y), (right + 12, y)], "soft", 1.5)
        d.box(right + 12, y - 8, 40, 16, "soft")
        d.box(right + 12, y - 8, 40 * min(rate, 1), 16, "rate", filled=True)
        ends = [(right + 52, y), (right + 80, y), (soma_x - 66, soma_y), (soma_x - 36, soma_y)]
        d.line(ends, "rate" if rate > 0.005 else "faint", 1.5 + 4 * rate, curved=True)
    d.label(right + 26, 98, 6, "DendriticRate")
    d.label(right + 40, bottom + 10, 7, "DendriticSummation")
    d.note(right + 67, bottom + 27, "linear in a Purkinje cell")

    # Soma and axon.
    d.circle(soma_x, soma_y, 36, "rate", 0.22)
    d.bars(soma_x - 27, soma_y + 9, line(w.potential), (54, 24), top(w.potential), "rate")
    d.label(soma_x - 36, soma_y - 66, 8, "SomaFilter")
    d.note(soma_x - 9, soma_y - 49, "its potential")
    d.label(soma_x - 36, soma_y + 64, 9, "FiringRate")
    d.note(soma_x - 9, soma_y + 81, "never below 0")
    d.line([(soma_x + 36, soma_y), (744, soma_y)], "rate", 3)
    x, size = 628.0, (112.0, 48.0)
    highest = top(w.rate, w.dropped)
    d.bars(x, soma_y - 8, line(w.dropped), size, highest, "rate")
    d.bars(x, soma_y - 8, line(w.rate), size, highest, "ink", hollow=True)
    d.label(x - 12, soma_y - 116, 10, "PoissonDropout")
    d.text(x + 15, soma_y - 98, "or ReleaseOrWait", size=13, mono=True)
    d.note(x + 15, soma_y - 80, "filled: it fires")
    for number in range(4):
        ending = soma_y - 33 + number * 22
        ends = [(744, soma_y), (756, soma_y), (754, ending), (764, ending)]
        d.line(ends, "rate", 2, curved=True)
        _synapse(d, 770, ending, -1)
    later = w.arriving[0, 0, NOW + 3, :, 0].tolist()
    d.heat(780, soma_y - 44, [[value] for value in later], (12, 22), top(w.arriving))
    d.label(640, soma_y + 64, 11, "SparseSynapses")
    d.note(667, soma_y + 81, "of the next cell")


def lifted_sites(w: Walk, number: int) -> list[int]:
    """Returns the sites of a dendrite that the dendritic spike lifts visibly."""
    gain = (w.lifted - w.spread)[0, 0, NOW, :, number]
    return [site for site, value in enumerate(gain.tolist()) if value > 0.02]


def _synapse(d: Drawing, x: float, y: float, weight: float) -> None:
    """Draws a dot as large as the weight; one that inhibits bears a stroke."""
    d.circle(x, y, 2.5 + 2 * abs(weight), "up" if weight > 0 else "down")
    if weight < 0:
        d.line([(x - 2, y), (x + 2, y)], "ground", 1.5)


@panel("1_axon", 250, "Axons carry rates", "activity (B, F, T)")
def axon(d: Drawing, w: Walk) -> None:
    """Activity of the axons over time as a map, and the burst of the followed axon."""
    x, y, cell = 92, 56, (14, 7)
    strongest = top(w.activity)
    d.heat(x, y, w.activity[0].tolist(), cell, strongest)
    for number, name in ((FOLLOWED, f"axon {FOLLOWED}"), (INHIBITORY, f"axon {INHIBITORY}")):
        middle = y + (number + 0.5) * cell[1]
        apart = 9 if number == FOLLOWED else -5
        d.line([(x - 14, middle + apart - 3), (x - 3, middle)], "ink", 1.5)
        d.text(x - 18, middle + apart, name, size=12, anchor="end", bold=number == FOLLOWED)
    d.note(x - 8, y + 10, "axon 0", "end")
    d.note(x - 8, y + AXONS * cell[1], f"axon {AXONS - 1}", "end")
    d.note(x, y + AXONS * cell[1] + 17, f"{STEPS} steps of {STEP_MS:.1f} ms, from left to right")
    d.arrow(396, 140)
    d.axes(452, 200, (320, 120), "", f"rate of axon {FOLLOWED}")
    d.bars(452, 200, w.activity[0, FOLLOWED].tolist(), (320, 120), strongest, "up")
    _step_marks(d, 452, 216, 320)


@panel("2_synapses", 250, "Vesicles meet receptors", "SparseSynapses")
def synapses(d: Drawing, w: Walk) -> None:
    """Four maps of sites by dendrites: vesicles times receptors, with the axon's sign, is the
    weight; times activity, the potential.
    """
    module = w.cell.synapses
    assert module.vesicles is not None
    assert module.receptors is not None
    weight = module.effective_weight()
    maps = (
        ("vesicles released", on_sheet(module.vesicles), top(module.vesicles), "soft", "\u00d7"),
        ("receptors present", on_sheet(module.receptors), top(module.receptors), "soft", "="),
        ("weight, Dale's sign", on_sheet(weight), top(weight), "up", "\u00d7"),
        (f"potential, step {NOW}", rows(w.synaptic), top(w.synaptic), "up", ""),
    )
    cell = (10, 17)
    for number, (name, values, strongest, colour, then) in enumerate(maps):
        x = 20 + number * 200
        d.text(x, 66, name, size=13)
        d.heat(x, 78, values, cell, strongest, colour)
        d.box(x + FIRST * cell[0], 78 + HIT * cell[1], 4 * cell[0], cell[1], "ink", stroke=2.5)
        d.scale(x, 190, strongest, "", colour)
        d.text(x + 180, 134, then, size=17, anchor="middle")
    d.text(600, 152, "rate", size=12, anchor="middle")
    d.note(
        20,
        232,
        f"a row is a dendrite, its {SITES} sites from left to right; framed: the four "
        f"synapses of axon {FOLLOWED}; a stroke: below rest",
    )


@panel("3_threshold", 290, "From rest up to the threshold", "ThresholdNorm")
def threshold(d: Drawing, w: Walk) -> None:
    """The potential before and after normalisation, and the curve between: flat at zero, then
    rising, then flat at the threshold.
    """
    norm = w.cell.threshold_norm
    assert norm is not None
    cell = (11, 19)
    for x, name, sheet in (
        (20, "potential", w.synaptic),
        (604, "normalised", w.normal),
    ):
        d.text(x, 66, f"{name}, step {NOW}", size=13)
        d.heat(x, 78, rows(sheet), cell, top(sheet))
        d.scale(x, 202, top(sheet), "")
    d.arrow(210, 135)
    d.arrow(570, 135)
    x, y, size = 262, 234, (280, 150)
    low, high, ceiling = -1.3, 1.3, norm.threshold * 1.15
    d.axes(x, y, size, "synaptic potential (lines: all of this window)", "normalised")

    def at(value: float, result: float) -> tuple[float, float]:
        return x + (value - low) / (high - low) * size[0], y - result / ceiling * size[1]

    inputs = torch.linspace(low, high, 200, dtype=torch.float64)
    results = norm(inputs.view(1, 1, -1))
    d.line([at(*pair) for pair in zip(inputs.tolist(), results.flatten().tolist(), strict=True)],
           "up", 3)  # fmt: skip
    for below in sorted({round(at(value, 0)[0]) for value in w.synaptic.flatten().tolist()}):
        d.line([(below, y), (below, y - 6)], "soft", 0.7)
    d.line([at(low, norm.threshold), at(high, norm.threshold)], "soft", 1, dash="4 4")
    d.text(x + 6, at(0, norm.threshold)[1] + 16, f"threshold {norm.threshold:g} sd", size=12)
    assert norm.norm.running_mean is not None
    mean = float(norm.norm.running_mean)
    d.line([at(mean, 0), at(mean, 1.4)], "soft", 1, dash="4 4")
    d.text(at(mean, 0)[0] - 5, at(0, 1.25)[1], "running mean", size=12, anchor="end")


@panel("4_dendrites", 300, "Charge spreads and lingers", "DendriticConv, Cable")
def dendrites(d: Drawing, w: Walk) -> None:
    """Dendrite with the burst, sites by time, before and after; between them the taps of the
    cable, which widen and sink with each step of lag.
    """
    cell = (11, 11)
    for x, name, sheet in (
        (20, "what comes in", w.normal),
        (560, "what comes out", w.spread - REST),
    ):
        d.text(x, 66, f"dendrite {HIT}, {name}", size=13)
        d.heat(x, 78, dendrite(sheet), cell, top(sheet))
        d.note(x, 78 + SITES * 11 + 17, "time from left to right, sites down")
        d.scale(x, 78 + SITES * 11 + 25, top(sheet), "")
    d.arrow(250, 166, 18)
    d.arrow(530, 166, 18)
    x, y, size = 292, 230, (216, 140)
    taps = w.cell.dendrites.weight[0, :, :, (DENDRITES - 1) // 2]  # (time, branches)
    highest = top(taps)
    d.axes(x, y, size, "", "tap")
    d.note(x + size[0] / 2, y + 34, "sites away from the synapse", "middle")
    lags, branches = taps.shape
    for lag in range(lags):
        values = taps[lags - 1 - lag].tolist()
        # A tap at offset o reads the site o further on: charge travels the other way.
        points = [
            (x + (branches - 1 - site + 0.5) / branches * size[0], y - value / highest * size[1])
            for site, value in enumerate(values)
        ]
        d.line(points, ("up", "ink", "soft", "soft", "soft")[lag], 3.2 - 0.5 * lag,
               dash=("", "", "", "5 4", "1.5 4")[lag])  # fmt: skip
    for offset in (-5, 0, 4):
        name = f"{offset:+d}".replace("-", "\u2212") if offset else "0"
        d.note(x + (offset + 5.5) / branches * size[0], y + 16, name, "middle")
    for lag, name in enumerate(("now", "1 step ago", "2", "3", "4")):
        above = 98 + lag * 16
        d.line([(x + 6, above - 4), (x + 26, above - 4)],
               ("up", "ink", "soft", "soft", "soft")[lag], 3.2 - 0.5 * lag,
               dash=("", "", "", "5 4", "1.5 4")[lag])  # fmt: skip
        d.text(x + 32, above, name, size=12)


@panel("5_spike", 270, "A dendritic spike lifts the neighbours", "DendriticSpike")
def spike(d: Drawing, w: Walk) -> None:
    """Potential along the dendrite before and after: sites near the largest are lifted toward
    it, those out of reach are not; beside it the whole sheet before and after.
    """
    module = w.cell.spike
    assert module is not None
    before, after = (rows(sheet)[HIT] for sheet in (w.spread, w.lifted))
    x, y, size = 40, 218, (380, 140)
    low, high = -0.4, max(after) * 1.08
    d.axes(x, y, size, f"site along dendrite {HIT}", f"potential, step {NOW}")

    def at(site: float, value: float) -> tuple[float, float]:
        return (
            x + (site + 0.5) / SITES * size[0],
            y - (value - low) / (high - low) * size[1],
        )

    assert isinstance(module.threshold, float)
    edge = at(0, module.threshold)[1]
    d.line([(x, edge), (x + size[0], edge)], "soft", 1, dash="4 4")
    d.text(x + size[0], edge - 6, f"threshold {module.threshold:g}", size=12, anchor="end")
    for value in (0, 1):
        d.note(x - 6, at(0, value)[1] + 4, str(value), "end")
    for site in lifted_sites(w, HIT):
        d.line([at(site, before[site]), at(site, after[site])], "up", 2)
    d.line([at(*pair) for pair in enumerate(before)], "ink", 2, dash="5 4")
    d.line([at(*pair) for pair in enumerate(after)], "up", 3.2)
    for name, colour, dash, row in (("after", "up", "", 0), ("before", "ink", "5 4", 1)):
        above = 84 + row * 18
        d.line([(x + 296, above - 4), (x + 322, above - 4)], colour, 3.2 - row, dash=dash)
        d.text(x + 330, above, name, size=12)
    highest = top((w.lifted - REST)[0, 0, NOW])
    for column, (name, sheet) in enumerate((("before", w.spread), ("after", w.lifted))):
        left = 448 + column * 180
        d.text(left, 66, f"all dendrites, {name}", size=13)
        d.heat(left, 78, rows(sheet - REST), (10, 21), highest)
    d.scale(448, 216, highest, f"above the dendrite's rest, {REST:g}".replace("-", "\u2212"))


@panel("6_rate", 270, "One number for each dendrite", "DendriticRate")
def rate(d: Drawing, w: Walk) -> None:
    """Potentials of the sites, the rectifier's curve, and one rate for each of six dendrites
    over time.
    """
    d.text(20, 66, f"potential, step {NOW}", size=13)
    d.heat(20, 78, rows(w.lifted), (11, 21), top(w.lifted[0, 0, NOW]))
    d.note(20, 222, "a stroke: below zero, no rate")
    d.arrow(212, 140)
    x, y, size = 262, 196, (130, 100)
    d.axes(x, y, size, "potential of a site", "rate of a site")
    d.line([(x, y), (x + 40, y), (x + size[0], y - 86)], "rate", 3)
    d.text(x + 8, y - 60, "max(0, x)", size=13, mono=True)
    d.note(x + size[0] / 2, 238, "then the mean over sites", "middle")
    d.arrow(402, 140)
    left, cell = 508, (14, 21)
    d.text(left, 66, "rate of each dendrite over time", size=13)
    d.heat(left, 78, w.dendritic[0, 0].mT.tolist(), cell, top(w.dendritic), "rate")
    d.box(left + NOW * cell[0], 78, cell[0], 6 * cell[1], "ink", stroke=2)
    for number in range(DENDRITES):
        d.note(left - 6, 93 + number * cell[1], f"dendrite {number}", "end")
    d.scale(left, 212, top(w.dendritic), f"(framed: step {NOW})", "rate")
    _step_marks(d, left, 240, STEPS * cell[0])


LAWS = (  # each with its line
    ("linear", "rate", 3.2, ""),
    ("sublinear", "down", 2.4, "7 4"),
    ("supralinear", "up", 2.4, ""),
    ("sigmoidal", "ink", 2.4, "2 4"),
)
KNEE = 0.1  # in the range of this run's sums


def laws(scale: float = 1.0) -> dict[str, DendriticSummation]:
    """Returns the four laws of summation by name."""
    return {
        "linear": DendriticSummation("linear", scale),
        "sublinear": DendriticSummation("sublinear", scale, knee=KNEE),
        "supralinear": DendriticSummation("supralinear", scale, knee=KNEE),
        "sigmoidal": DendriticSummation("sigmoidal", scale, knee=KNEE),
    }


@panel("7_summation", 300, "Dendrites sum by the cell's law", "DendriticSummation")
def summation(d: Drawing, w: Walk) -> None:
    """The four laws of summation as curves, and what each makes of this run's sums over time."""
    x, y, size = 46, 250, (330, 180)
    most = 0.25
    d.axes(x, y, size, f"s = mean of the dendrites' rates (knee {KNEE:g})", "current to the soma")
    sums = torch.linspace(0, most, 101, dtype=torch.float64)
    ends = {}
    for name, colour, width, dash in LAWS:
        result = laws()[name].law_of(sums).tolist()
        inside = [
            (x + s / most * size[0], y - value / most * size[1])
            for s, value in zip(sums.tolist(), result, strict=True)
            if value <= most
        ]
        d.line(inside, colour, width, dash=dash)
        ends[name] = inside[-1]
    d.text(x + size[0] - 30, ends["linear"][1] + 9, "linear", size=13, anchor="end")
    d.text(x + size[0], ends["sublinear"][1] + 17, "sublinear", size=13, anchor="end")
    d.text(ends["supralinear"][0] - 8, ends["supralinear"][1] + 10, "supralinear", size=13,
           anchor="end")  # fmt: skip
    d.text(x + size[0], ends["sigmoidal"][1] + 17, "sigmoidal", size=13, anchor="end")
    for value in line(w.current):
        below = x + value / most * size[0]
        d.line([(below, y), (below, y - 7)], "rate", 1.5)
    d.arrow(392, 160)
    left, wide = 446, 334
    d.text(left, 66, "current over time, of the same rates", size=13)
    for number, (name, colour, _, _) in enumerate(LAWS):
        law = laws(1 / DENDRITES)[name]
        base = 112 + number * 44
        d.bars(left + 92, base, line(law(w.dendritic)), (wide - 92, 36), 0.2, colour)
        d.text(left + 86, base - 4, name, size=13, anchor="end", bold=name == "linear")
    _step_marks(d, left + 92, 262, wide - 92)
    d.note(left, 288, "bold: this cell's law")


@panel("8_soma", 230, "The soma remembers five steps", "SomaFilter")
def soma(d: Drawing, w: Walk) -> None:
    """Current, the five taps of the soma's filter, and the smoother, later potential."""
    highest = top(w.current)
    size = (270.0, 110.0)
    d.axes(30, 188, size, "", "current from the dendrites")
    d.bars(30, 188, line(w.current), size, highest, "rate")
    d.arrow(316, 140)
    taps = w.cell.soma.weight.tolist()
    d.axes(360, 188, (90, 110), "4 steps ago \u2026 now", "taps")
    d.bars(360, 188, taps, (90, 110), max(taps), "ink")
    d.arrow(468, 140)
    d.axes(510, 188, size, "", "potential of the soma")
    d.bars(510, 188, line(w.filtered), size, highest, "rate")
    d.bars(510, 188, line(w.current), size, highest, "soft", hollow=True)
    _step_marks(d, 30, 204, size[0])
    _step_marks(d, 510, 204, size[0])
    d.note(780, 71, "outline: the current", "end")


@panel("9_firing", 244, "No rate below zero", "FiringRate")
def firing(d: Drawing, w: Walk) -> None:
    """The soma's potential with its bias, and the rate, which is never below zero."""
    highest = top(w.potential)
    size = (300.0, 96.0)
    d.axes(30, 176, size, "", "potential and the soma's bias")
    d.bars(30, 176, line(w.potential), size, highest, "rate")
    _step_marks(d, 30, 210, size[0])
    d.arrow(346, 140)
    d.text(384, 145, "max(0, x)", size=13, mono=True)
    d.arrow(462, 140)
    d.axes(500, 176, (280, 96), "", "firing rate")
    d.bars(500, 176, line(w.rate), (280, 96), highest, "rate")
    _step_marks(d, 500, 210, 280)
    d.note(30, 230, "hanging: below zero, silent")


@panel("10_chance", 270, "Fire, or wait", "PoissonDropout, ReleaseOrWait")
def chance(d: Drawing, w: Walk) -> None:
    """The rate as outlines and what the axon carries filled, for Poisson dropout and for release
    or wait; beside them the Poisson distribution of waiting periods.
    """
    highest = top(w.dropped, w.released)
    rate = line(w.rate)
    for y, name, stage in ((126, "PoissonDropout", w.dropped), (214, "ReleaseOrWait", w.released)):
        d.text(150, y - 22, name, size=13, mono=True, anchor="end")
        fires = line(stage)
        d.bars(166, y, fires, (350, 64), highest, "rate")
        d.bars(166, y, rate, (350, 64), highest, "ink", hollow=True)
        for step, (intended, sent) in enumerate(zip(rate, fires, strict=True)):
            if intended > 0 and sent == 0:
                x = 166 + (step + 0.5) * 17.5
                d.line([(x - 3, y + 5), (x + 3, y + 11)], "ink", 1.5)
                d.line([(x - 3, y + 11), (x + 3, y + 5)], "ink", 1.5)
    _step_marks(d, 166, 240, 350)
    d.note(166, 260, "outline: the rate; filled: what goes out; \u00d7: it waits")
    x, y = 580, 206
    d.text(x - 10, y - 130, "waiting periods K ~ Poisson(0.5)", size=13)
    share = torch.distributions.Poisson(w.dropout.mean_wait)
    shares = [float(share.log_prob(torch.tensor(float(k))).exp()) for k in range(4)]
    d.bars(x, y, shares, (190, 106), shares[0], "ink")
    for k, value in enumerate(shares):
        middle = x + (k + 0.5) * 190 / 4
        d.text(middle, y - value / shares[0] * 106 - 5, f"{value:.0%}", size=12, anchor="middle")
        d.note(middle, y + 17, f"K = {k}", "middle")


@panel("11_terminals", 230, "Its terminals are the next layer's synapses", "SparseSynapses")
def terminals(d: Drawing, w: Walk) -> None:
    """What the axon carries, and the potential that it makes at four synapses of the next cell,
    below rest.
    """
    size = (290.0, 110.0)
    d.axes(30, 188, size, "", "what the axon carries")
    d.bars(30, 188, line(w.dropped), size, top(w.dropped), "rate")
    _step_marks(d, 30, 206, size[0])
    d.line([(336, 140), (366, 140)], "rate", 3)
    x, y, cell = 480, 80, (15, 27)
    weights = w.terminals.effective_weight()[0].tolist()
    for number, weight in enumerate(weights):
        middle = y + (number + 0.5) * cell[1]
        d.line([(366, 140), (382, 140), (374, middle), (396, middle)], "rate", 2, curved=True)
        d.circle(403, middle, 6, "down", 0.9)
        d.line([(400, middle), (406, middle)], "ground", 1.5)
        d.text(416, middle + 4, f"\u00d7 {weight:.2f}".replace("-", "\u2212"), size=13)
    d.text(x, 66, "potential on one dendrite of the next cell", size=13)
    values = w.arriving[0, 0, :, :, 0].mT.tolist()
    d.heat(x, y, values, cell, top(w.arriving))
    _step_marks(d, x, 206, STEPS * cell[0])


def _step_marks(d: Drawing, x: float, y: float, width: float) -> None:
    """Writes the numbers of some steps under a strip that starts at x."""
    d.note(x + width, y, "step", "end")
    for step in range(0, STEPS, 5):
        d.note(x + (step + 0.5) * width / STEPS, y, str(step), "middle")


def pictures(w: Walk) -> dict[str, str]:
    """Returns the text of each SVG file by its name, without the suffix."""
    with torch.no_grad():
        return {name: svg(w) for name, svg in _PANELS.items()}
