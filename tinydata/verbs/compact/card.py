"""Manifest of a vocabulary -> its README.md: what the vocabulary is and what it costs."""

from __future__ import annotations

from typing import Any

from tinydata.core.location import Location
from tinydata.core.text import visible
from tinydata.verbs.compact.domain_guard import BOUND


def adaptation_text(facts: dict[str, Any]) -> str:
    """`adapted` of the manifest -> sentences, for the README.md and the console."""
    lines = [
        f"{facts['learned']:,} tokens were learned from the {facts['words']:,} distinct words of the corpus;"
        f" {facts['pruned_to']:,} tokens were kept from the original vocabulary."
    ]
    heldout = facts["heldout"]
    if heldout:
        worst, guard = heldout["worst_domain"], heldout["guard"]
        lines[0] += (
            f" Inflation on held-out text: {heldout['inflation']:+.2%}; with pruning alone to the same size:"
            f" {heldout['inflation_pruned_only']:+.2%}. Worst domain compared with pruning alone:"
            f" {worst['domain']},"
            f" {worst['against_pruned_only']:+.2%}."
        )
        if guard["attempts"] > 1:
            many = len(guard["weights"])
            fewer = " and fewer tokens were learned" if guard["fewer_merges"] else ""
            lines[0] += (
                f" To keep every domain within {BOUND:.1%}, the words of {many} domains were given more weight{fewer};"
                f" this changed the total by {guard['cost']:+.2%}."
            )
    shown = " ".join(visible(t) for t in facts["top"])
    return "\n".join([*lines, *([f"Learned first: {shown}"] if shown else [])])


def card(head: dict[str, Any], result: dict[str, Any]) -> str:
    """Header and result of the manifest -> text of README.md."""
    trade = result["trade"]
    original = head["tokenizer"]
    lines = [
        f"# {trade['ids']['after']:,} of {trade['ids']['before']:,} tokens",
        "",
        f"A compact version of `{Location.of(original['path']).name}` ({original['family']}), produced by tinydata"
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
    heldout = trade["heldout"]
    if heldout:
        lines += [
            f"| bytes per token | {heldout['bytes_per_token_before']:.3f} | {heldout['bytes_per_token_after']:.3f} |",
            f"| single-byte tokens | {heldout['byte_tokens_before']:.2%} | {heldout['byte_tokens_after']:.2%} |",
            f"| unknown tokens | {heldout['unknown_before']:,} | {heldout['unknown_after']:,} |",
            "",
            f"Inflation on held-out text ({heldout['documents']} documents, {heldout['bytes']:,} bytes):"
            f" **{heldout['inflation']:+.2%}**. By domain, worst first:",
            "",
            "| domain | inflation | bytes per token |",
            "|---|---|---|",
            *(
                f"| {r['domain']} | {r['inflation']:+.2%} | {r['bytes_per_token_after']:.3f} |"
                for r in heldout["domains"][:20]
            ),
        ]
    if "adapted" in result:
        lines += ["", adaptation_text(result["adapted"])]
    lines += [
        "",
        "`idmap.parquet` maps each original id to its new id or, if it was removed, to the tokens that spell it.",
        "",
    ]
    return "\n".join(lines)
