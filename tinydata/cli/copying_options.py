"""The options of `tinydata resample` that copy the kept sequences to new shards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from tinydata.cli.options import FORMATS, gathered

if TYPE_CHECKING:
    from tinydata.verbs.resample.copy_shards import ShardLayout


@dataclass(frozen=True)
class Copying:
    """Whether and how the kept sequences are copied; None: the default."""

    materialize: bool
    to: str | None
    order: str | None
    shard_tokens: int | None

    def target(self) -> ShardLayout | None:
        """The shards to write, None for a list only; a usage error if the options contradict one another."""
        from tinydata.verbs.resample.copy_shards import ShardLayout

        given = {k: v for k, v in asdict(self).items() if k != "materialize" and v is not None}
        if given and not self.materialize:
            raise click.UsageError("--to, --order and --shard-tokens need --materialize")
        return ShardLayout(**given) if self.materialize else None


copying = gathered(
    "copying",
    Copying,
    materialize=click.option("--materialize", is_flag=True, help="Also copy the kept sequences to new shards."),
    to=click.option(
        "--to",
        type=click.Choice(FORMATS),
        default=None,
        help="File format of the copied shards. The default is megatron.",
    ),
    order=click.option(
        "--order",
        type=click.Choice(["concatenated", "shuffled"]),
        default=None,
        help="Order of the sequences in the copied shards. The default is concatenated; --seed decides shuffled.",
    ),
    shard_tokens=click.option(
        "--shard-tokens",
        type=click.IntRange(1),
        default=None,
        help="Number of tokens in a copied shard. The default is 2^27.",
    ),
)
