"""The bench as tables."""

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from neuroconv.bench.record import Figure
from neuroconv.bench.run import BenchReport
from neuroconv.bench.turns import Failure, Outcome

_MET = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}


def section_table(name: str, report: BenchReport) -> Table:
    """One section: times by variant, and the figures with their bars."""
    section = report.sections[name]
    table = Table(
        "comparison", "median times", "figure", "bar", "",
        title=f"{name}: {section.state}, {section.seconds:.1f} s", title_justify="left",
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False,
    )  # fmt: skip
    for row in section.rows:
        table.add_row(
            row.comparison,
            _times(row.times),
            "\n".join(map(_figure, row.figures)),
            "\n".join(map(_bar, row.figures)),
            "\n".join(_MET[figure.met] for figure in row.figures),
        )
        for note in row.notes:
            table.add_row("", f"[dim]{note}[/dim]")
    return table


def verdict(report: BenchReport) -> str:
    """How many bars are met, and which are not."""
    if report.settings["quick"]:
        return "quick: small shapes and few repeats; no bar was judged"
    bars = report.bars
    judged = [bar for bar in bars if "met" in bar]
    missed = [bar for bar in judged if not bar["met"]]
    lines = [f"{len(judged) - len(missed)} of {len(judged)} bars met"]
    lines += [
        f"  missed: {bar['comparison']}: {bar['figure']} = {bar['value']:.3g}" for bar in missed
    ]
    busy = report.settings.get("load_average_before", 0.0)
    if busy > 0.5:
        lines.append(f"  other programs kept {busy:.1f} cores busy: take the times with caution")
    lines += [
        f"  not measured: {bar['comparison']}: {bar['figure']}" for bar in bars if "met" not in bar
    ]
    return "\n".join(lines)


def _times(times: Mapping[str, Outcome]) -> str:
    each = [f"{variant}: {_time(outcome)}" for variant, outcome in times.items()]
    return (", " if all(variant.isdecimal() for variant in times) else "\n").join(each)


def _time(outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return f"[dim]{outcome.reason}[/dim]"
    timing = outcome.timing
    if timing.repeats == 1:
        return f"{_seconds(timing.seconds)} (once)"
    return f"{_seconds(timing.seconds)} ±{timing.spread / 2:.0%}"


def _seconds(value: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return f"[dim]– {figure.text}[/dim]"
    spread = ""
    if figure.lower is not None and figure.upper is not None and figure.lower < figure.upper:
        spread = f" ({_number(figure.lower)} to {_number(figure.upper)})"
    return f"[bold]{_number(figure.value)}[/bold]{spread} {figure.text}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bar(figure: Figure) -> str:
    parts = [
        f"{sign} {bar:g}"
        for sign, bar in (("≥", figure.at_least), ("≤", figure.at_most))
        if bar is not None
    ]
    return " ".join(parts)
