"""The README.md of a vocabulary: what it is, what it costs, how to load it."""

from __future__ import annotations

from typing import Any

from tinydata.core.location import Location
from tinydata.core.text import visible
from tinydata.verbs.compact.adapt import BOUND


def said(facts: dict[str, Any]) -> str:
    """The facts as sentences, for the card and the console."""
    lines = [
        f"{facts['learned']:,} tokens were learned from the corpus's {facts['words']:,} different words;"
        f" {facts['pruned_to']:,} are old."
    ]
    held = facts["heldout"]
    if held:
        worst, guard = held["worst_domain"], held["guard"]
        lines[0] += (
            f" Inflation on held-out text: {held['inflation']:+.2%}; pruning alone, to the same size:"
            f" {held['inflation_pruned_only']:+.2%}. Worst domain against pruning alone: {worst['domain']},"
            f" {worst['against_pruned_only']:+.2%}."
        )
        if guard["attempts"] > 1:
            many = len(guard["weights"])
            fewer = " and fewer tokens were learned" if guard["fewer_merges"] else ""
            lines[0] += (
                f" So that no domain lost more than {BOUND:.1%}, words of {many} domains weigh more{fewer}; that cost"
                f" {guard['cost']:+.2%}."
            )
    shown = " ".join(visible(t) for t in facts["top"])
    return "\n".join([*lines, *([f"Learned first: {shown}"] if shown else [])])


def card(head: dict[str, Any], result: dict[str, Any]) -> str:
    """README.md of the vocabulary."""
    trade = result["trade"]
    made = head["tokenizer"]
    lines = [
        f"# {trade['ids']['after']:,} of {trade['ids']['before']:,} tokens",
        "",
        f"A compact version of `{Location.of(made['path']).name}` ({made['family']}), made by tinydata"
        f" {head['tinydata']} from token counts of a corpus. Options: `{head['options']}`.",
        "",
        "| | before | after |",
        "|---|---|---|",
        f"| ids | {trade['ids']['before']:,} | {trade['ids']['after']:,} |",
        f"| embedding + head, d_model {trade['d_model']} (untied) |"
        f" {trade['embedding_and_head_parameters']['before']:,} |"
        f" {trade['embedding_and_head_parameters']['after']:,} |",
        f"| dead pieces | {trade['dead_pieces']['before']} | {trade['dead_pieces']['after']} |",
    ]
    held = trade["heldout"]
    if held:
        lines += [
            f"| bytes per token | {held['bytes_per_token_before']:.3f} | {held['bytes_per_token_after']:.3f} |",
            f"| single-byte tokens | {held['byte_tokens_before']:.2%} | {held['byte_tokens_after']:.2%} |",
            f"| unknown tokens | {held['unknown_before']:,} | {held['unknown_after']:,} |",
            "",
            f"Inflation on held-out text ({held['documents']} documents, {held['bytes']:,} bytes):"
            f" **{held['inflation']:+.2%}**. By domain, worst first:",
            "",
            "| domain | inflation | bytes per token |",
            "|---|---|---|",
            *(
                f"| {r['domain']} | {r['inflation']:+.2%} | {r['bytes_per_token_after']:.3f} |"
                for r in held["domains"][:20]
            ),
        ]
    if "adapted" in result:
        lines += ["", said(result["adapted"])]
    lines += ["", "`idmap.parquet` gives for each old id its new id, or the kept tokens that spell it.", ""]
    return "\n".join(lines)
