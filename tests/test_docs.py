"""The documents: links lead somewhere, messages are those of the code, commands exist."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from absl import flags

from jaxmat.commands.configs import config_names, load_config
from jaxmat.commands.main import VERBS
from jaxmat.experiments.fields import fields
from jaxmat.transfer.strategies import STRATEGIES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.name: path for path in DOCUMENTS}


def anchors(path: Path) -> set[str]:
    """Names of the headings of a document, as links have them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = link.partition("#")
        if "://" in file:
            continue
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_every_page_is_in_the_site() -> None:
    index = PAGES["index.md"].read_text(encoding="utf-8")
    listed = re.findall(r"^[a-z_]+$", index, re.MULTILINE)
    assert sorted([*listed, "index"]) == sorted(p.stem for p in (ROOT / "docs").glob("*.md"))


def texts() -> list[str]:
    """All texts of the code, with an ellipsis for what is filled in."""
    found = []
    for path in (ROOT / "jaxmat").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(\.\d)?[sdfg]", "…", node.value))
            elif isinstance(node, ast.JoinedStr):
                parts = [n.value if isinstance(n, ast.Constant) else "…" for n in node.values]
                found.append("".join(map(str, parts)))
    return found


def pattern(message: str) -> str:
    """A regular expression for a message, whatever is filled in."""
    return ".*".join(map(re.escape, message.split("…")))


def test_messages_to_mend_are_those_of_the_code() -> None:
    page = PAGES["troubleshooting.md"].read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `", line)]
    ours = [row.split("`")[1] for row in rows if "JAX's words" not in row]
    assert len(ours) > 20
    known = texts()
    missing = [
        message
        for message in ours
        if not any(re.search(pattern(message), text, re.DOTALL) for text in known)
    ]
    assert not missing


def test_verbs_and_strategies_are_in_the_documents() -> None:
    readme = PAGES["README.md"].read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"`jaxmat {verb}`" not in readme] == []
    methods = PAGES["methods.md"].read_text(encoding="utf-8")
    named = {name for name in STRATEGIES if not name.endswith("_still")}
    assert [name for name in named if f"`{name}`" not in methods] == []


@pytest.fixture(scope="module")
def verb_flags() -> dict[str, set[str]]:
    """The flags of each verb."""
    found = {}
    for verb in VERBS:
        values = flags.FlagValues()
        importlib.import_module(f"jaxmat.commands.{verb}").COMMAND.define(values)
        found[verb] = {*values, "help"}
    return found


@pytest.fixture(scope="module")
def config_fields() -> set[str]:
    """The fields of all configs."""
    return {field for name in config_names() for field in fields(load_config(name))}


def test_flags_in_documents_are_those_of_the_code(verb_flags, config_fields) -> None:
    wrong, count = [], 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for verb, rest in re.findall(r"jaxmat (\w+)\b([^`|\n]*)", text):
            known = verb_flags.get(verb, set())
            used = re.findall(r"(?<![\w-])--([a-zA-Z_.]+)", rest) if known else []
            wrong += [
                f"{path.name}: {verb} --{flag}"
                for flag in used
                if flag not in known and not flag.startswith("config.")
            ]
            count += len(used)
        for field in re.findall(r"--config\.([a-z_.]+)", text):
            if field not in config_fields:
                wrong.append(f"{path.name}: --config.{field}")
    assert count > 60
    assert not wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"^(?:\S*bin/)?jaxmat (\w+)", text, re.MULTILINE)
    assert not [verb for verb in used if verb not in VERBS]
    assert "python -m jaxmat." not in text or path.name == "CHANGELOG.md"
