"""`compare` and `demo`: a model and its opponents, as a table and a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from neuroconv.cli.options import ConfigArgument, PageOption, check_output
from neuroconv.comparison.page import compare_and_report, demo
from neuroconv.training import load_config


@dataclass(frozen=True)
class Compare:
    """Trains the model of a TOML file and its [[opponents]], and writes a table and report.html.

    An option --TABLE.KEY VALUE overrides a key of the file, as for `train`. Finished runs of the
    same configuration are not trained again.

    Example: neuroconv compare configs/mnist_granule.toml --data.root DIR --report mnist/report.html
    """

    config: ConfigArgument
    """a TOML file with [[opponents]]"""
    report: PageOption = Path("report.html")
    """the page; comparison.json and comparison.toml are written beside it"""
    linear: bool = True
    """also fit a linear classifier on the still images' pixels"""

    def __call__(self, console: Console, overrides: Sequence[str] = ()) -> None:
        config = load_config(self.config, overrides)
        check_output(self.report, "--report")
        if not config.opponents:
            opponent = "a linear classifier alone" if self.linear else "nothing"
            console.out(
                f"no [[opponents]] in {self.config}: its model is compared with {opponent}. "
                "configs/mnist_granule.toml shows how to name some"
            )
        compare_and_report(config, output=self.report, title=self.config.stem, linear=self.linear)


@dataclass(frozen=True)
class Demo:
    """Trains, counts and compares four networks on embedded data, in under three minutes.

    Example: neuroconv demo
    """

    report: PageOption = Path("report.html")
    """the page"""

    def __call__(self, console: Console) -> None:
        check_output(self.report, "--report")
        demo(report=self.report)
