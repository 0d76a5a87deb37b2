"""Docs cannot drift: docs/reference/ is generated, and what README shows exists."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
from pathlib import Path

import click
import pytest

from tests.trainer.options import PROGRAMS, config_of, option_helps
from tinydata.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


GENERATED = "Written by `UPDATE_DOCS=1 pytest tests/test_docs.py`."


def reference_of_tinydata() -> str:
    """Every --help of the command line."""
    parts = ["# Command line", "", GENERATED, ""]
    commands: list[tuple[str, click.Command]] = [("tinydata", cli)]
    commands += [(f"tinydata {name}", command) for name, command in sorted(cli.commands.items())]
    for name, command in commands:
        names = cli.context_settings["help_option_names"]
        context = click.Context(command, info_name=name, terminal_width=100, help_option_names=names)
        parts += [f"## {name}", "", "```", command.get_help(context), "```", ""]
    return "\n".join(parts)


def reference_of_trainer() -> str:
    """The options of every program of the trainer, as their classes have them."""
    parts = [
        "# The trainer's options",
        "",
        GENERATED,
        "",
        "Each program is `python -m NAME`; `--help` says the same.",
        "",
    ]
    for name in PROGRAMS:
        config = config_of(name)
        rows = []
        for field, text in option_helps(config).items():
            default = config.__dataclass_fields__[field].default
            value = "" if default in (dataclasses.MISSING, "", (), None) else f"`{default}`"
            rows.append(f"| `--{field.replace('_', '-')}` | {value} | {text.replace('|', '/')} |")
        summary = " ".join((config.__doc__ or "").split())
        parts += [f"## {name}", "", summary, "", "| option | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)


@pytest.mark.parametrize("name", ["tinydata", "trainer"])
def test_the_reference_is_what_help_says(name: str) -> None:
    if name == "trainer":
        pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")
    page = ROOT / "docs" / "reference" / f"{name}.md"
    content = reference_of_tinydata() if name == "tinydata" else reference_of_trainer()
    if os.environ.get("UPDATE_DOCS"):
        page.write_text(content, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == content


def shown_commands() -> list[tuple[str, list[str]]]:
    """(page, words) of each `tinydata …` command line in a code block or a table."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        lines = re.findall(r"^(?:\$ )?(tinydata [^\n#]*)", text, re.M) + re.findall(r"`(tinydata [^`]*)`", text)
        for line in lines:
            if page.parent.name != "reference" and "│" not in line and not line.startswith("tinydata/"):
                found.append((page.name, shlex.split(line.replace("…", ""))))
    return found


@pytest.mark.parametrize(("page", "words"), shown_commands(), ids=lambda v: v if isinstance(v, str) else " ".join(v))
def test_shown_commands_exist(page: str, words: list[str]) -> None:
    if words[1].startswith(("-", "VERB")):
        assert words[1] in ("--version", "--help", "VERB")
        return
    command = cli.commands[words[1]]
    options = {o for p in command.params for o in [*p.opts, *p.secondary_opts]}
    for word in words[2:]:
        if re.fullmatch(r"-{1,2}[a-z][a-z-]*", word):
            assert word in options, f"{page}: {' '.join(words)} has no {word}"


def test_the_tree_in_the_architecture_page_exists() -> None:
    block = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1]
    folder = ROOT
    for line in block.strip().splitlines():
        name = line.split()[0]
        folder = folder if line.startswith("  ") else ROOT / name
        assert (folder / name if line.startswith("  ") else folder).exists(), line


def places_in_the_code() -> list[tuple[str, str]]:
    """(name, file) for each "`name` in `file`" on the architecture page."""
    return re.findall(r"`([\w.]+)`\s+in\s+`([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())


@pytest.mark.parametrize(("name", "file"), places_in_the_code())
def test_the_architecture_page_names_what_exists(name: str, file: str) -> None:
    owner, _, member = name.rpartition(".")
    body = ast.parse((ROOT / file).read_text()).body
    if owner:
        body = next(n for n in body if isinstance(n, ast.ClassDef) and n.name == owner).body
    assert member in {n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def test_the_readme_is_short_and_begins_with_something_to_run() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert next(n for n, line in enumerate(lines, 1) if line.startswith("$ tinydata ")) <= 45


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} -> {link}"


def trainer_commands() -> list[tuple[str, list[str]]]:
    """(page, words) of each `python -m trainer.…` command line."""
    found = []
    for page in [*PAGES, ROOT / "examples" / "demo.sh"]:
        for line in re.findall(r"python -m (trainer\.[a-z]+[^`\n#|;>)]*)", page.read_text(encoding="utf-8")):
            found.append((page.name, re.sub(r"[…\[\]]", " ", line).split()))
    return found


@pytest.mark.parametrize(("page", "words"), trainer_commands(), ids=lambda v: v if isinstance(v, str) else " ".join(v))
def test_shown_trainer_commands_exist(page: str, words: list[str]) -> None:
    pytest.importorskip("torch", reason="the trainer needs torch: pip install 'tinydata[train]'")
    config = config_of(words[0])
    names = {f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(config)}
    for word in words[1:]:
        if word.startswith("--"):
            assert word in names or word.replace("--no-", "--") in names, f"{page}: {' '.join(words)} has no {word}"


def described_options() -> list[tuple[str, str, str]]:
    """(command, option, help) of each option that `--help` lists."""
    described = []
    for name, command in {"tinydata": cli, **cli.commands}.items():
        context = click.Context(command, info_name=name, help_option_names=cli.context_settings["help_option_names"])
        options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
        described += [(name, option.opts[-1], option.help or "") for option in options]
    return described


@pytest.mark.parametrize(("command", "option", "text"), described_options())
def test_each_option_has_a_sentence_of_help(command: str, option: str, text: str) -> None:
    assert text[:1].isupper(), text
    assert text.endswith("."), text
    assert len(text.split()) >= 3, text


def test_summaries_of_commands_fit_on_a_line() -> None:
    context = click.Context(cli, info_name="tinydata", terminal_width=80)
    listed = cli.get_help(context).split("Commands:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == sorted(cli.commands)
    for line in listed:
        assert line.endswith(".") and not line.endswith("..."), line
