"""What `tinydata count` prints: its result, and warnings, which `tinydata encode` prints too."""

from __future__ import annotations

from typing import Any

from tinydata.core.errors import DONE, QUARANTINED
from tinydata.core.text import many, seconds, size


def summary_text(manifest: dict[str, Any], out: str, took: float) -> str:
    """Tokens and documents, and how fast they were counted."""
    t = manifest["totals"]
    rate = t["bytes"] / max(took, 1e-9)
    return (
        f"{t['tokens']:,} tokens in {many(t['documents'], 'document')}, {size(t['bytes'])} of text,"
        f" {many(t['domains'], 'domain')};"
        f" {t['distinct_tokens']:,} of {manifest['tokenizer']['size']:,} ids occur\n"
        f"{t['heldout_tokens']:,} tokens in {many(t['heldout_documents'], 'document')} are held out\n"
        f"wrote {out} in {seconds(took)} ({size(rate)}/s)"
    )


def exit_code(manifest: dict[str, Any]) -> int:
    """QUARANTINED if some input was not used, be it that its format is not known but it most likely has documents."""
    from tinydata.formats.strangers import holds_data

    lost = manifest["quarantined"]["documents"] or any(holds_data(path) for path in manifest["skipped_files"])
    return QUARANTINED if lost else DONE


def warnings_text(manifest: dict[str, Any]) -> list[str]:
    """What a user should know about a result, though the command succeeded."""
    out = []
    bad = manifest["quarantined"]
    if bad["documents"]:
        why = "; ".join(f"{n:,} x {r}" for r, n in bad["reasons"].items())
        about = "about " if bad["unread_bytes"] else ""
        out.append(f"warning: {about}{many(bad['documents'], 'document')} quarantined ({why}); see quarantine.parquet")
        out += [f"warning: {size(n)} of {path} were not read" for path, n in list(bad["unread_bytes"].items())[:5]]
    if manifest["options"].get("heldout") and not manifest["totals"]["heldout_documents"]:
        share = manifest["options"]["heldout"]
        out.append(
            f"note: no document fell into the held-out {share:.0%}, so `tinydata compact` cannot measure inflation;"
            " pass a larger --heldout"
        )
    if manifest["totals"]["masked"]:
        out.append(
            f"note: {manifest['totals']['masked']:,} masked tokens (no loss, or negative ids) counted as all others"
        )
    if manifest["skipped_files"]:
        from tinydata.formats.strangers import advice, holds_data

        skipped = manifest["skipped_files"]
        lost = [path for path in skipped if holds_data(path)]
        said = f"{'warning' if lost else 'note'}: skipped {many(len(skipped), 'file')} of unknown format"
        out.append(f"{said}: {', '.join((lost or skipped)[:3])}" + (f"; {advice(lost)}" if lost else ""))
    for path in manifest.get("encoded_whole", []):
        out.append(f"note: encoding words first differs from the tokenizer's library on {path}; it was encoded whole")
    return out
