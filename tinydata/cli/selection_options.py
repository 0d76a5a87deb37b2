"""The options of `tinydata resample` that decide which sequences are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from tinydata.cli.options import gathered, typed

if TYPE_CHECKING:
    from tinydata.verbs.resample.plan import Settings


@dataclass(frozen=True)
class Selection:
    """What decides which sequences are kept; None: what the preset has."""

    keep: float
    tokens: int | None
    preset: str
    unit: str | None
    batch_tokens: int
    temperature: float | None
    clip_quantile: str | None
    zscore: bool
    floor: float | None
    stratify: str | None
    exclude: tuple[str, ...]
    max_repeats: int
    seed: int

    def settings(self) -> Settings:
        """The settings of the verb; a usage error if the options contradict one another."""
        from tinydata.verbs.resample.plan import quantiles, settings

        values = asdict(self)
        clip = values.pop("clip_quantile")
        values["clip"] = None if clip is None else quantiles(clip)
        values["zscore"] = self.zscore or None
        made = settings(values.pop("preset"), values.pop("exclude"), **values)
        if typed("batch_tokens") and made.unit != "batch":
            raise click.UsageError("--batch-tokens needs --unit batch or --preset paper")
        if self.tokens and typed("keep"):
            raise click.UsageError("--keep and --tokens both set the amount: pass only one of them")
        return made


selection = gathered(
    "selection",
    Selection,
    keep=click.option(
        "--keep",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.5,
        show_default=True,
        help="Share of the sequences with a loss to keep.",
    ),
    tokens=click.option(
        "--tokens", type=click.IntRange(1), default=None, help="Instead of --keep: number of tokens to keep."
    ),
    preset=click.option(
        "--preset",
        type=click.Choice(["guarded", "paper"]),
        default="guarded",
        show_default=True,
        help="Defaults of the options for the draw. The preset paper draws whole batches, as the paper does. The preset"
        " guarded draws sequences within each domain, clips losses at the quantiles 0.01 and 0.99, and"
        " excludes with all guards.",
    ),
    unit=click.option(
        "--unit",
        type=click.Choice(["sequence", "document", "batch"]),
        default=None,
        help="What is drawn as a whole. The default depends on --preset.",
    ),
    batch_tokens=click.option(
        "--batch-tokens",
        type=click.IntRange(1),
        default=1 << 21,
        show_default=True,
        help="Number of tokens in a batch, for --unit batch.",
    ),
    temperature=click.option(
        "--temperature",
        type=click.FloatRange(0, min_open=True),
        default=None,
        help="Temperature T of the weights exp(loss / T).",
    ),
    clip_quantile=click.option(
        "--clip-quantile", default=None, help="Quantiles LO,HI at which losses are clipped, or none."
    ),
    zscore=click.option(
        "--zscore", is_flag=True, help="Measure each loss in robust standard deviations of its stratum."
    ),
    floor=click.option(
        "--floor",
        type=click.FloatRange(0, 1, max_open=True),
        default=None,
        help="Share of a uniform draw to mix into the weights.",
    ),
    stratify=click.option(
        "--stratify",
        type=click.Choice(["domain", "none"]),
        default=None,
        help="Draw within each domain, which keeps their proportions, or from all domains together.",
    ),
    exclude=click.option(
        "--exclude",
        multiple=True,
        metavar="GUARD[=N]",
        help="Never keep sequences that a guard finds: periodic (N: period in tokens), short (N: share of the"
        " sequence that has a loss), unknown (N: share of unknown tokens) or prior (N: robust standard"
        " deviations from the domain's median). Pass none to use no guard.",
    ),
    max_repeats=click.option(
        "--max-repeats",
        type=click.IntRange(0),
        default=0,
        help="Never keep a sequence that was trained on this many times. The default, 0, is no limit.",
    ),
    seed=click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Random seed of the draw."),
)
