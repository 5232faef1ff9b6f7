"""Words and turns of phrase that are never right here, in documents, help, alerts, messages and docstrings.

Each pattern comes with what to write instead. The list is short on purpose: it has the words that readers stumble over,
and no word that has a good use.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from docs.generate import documents, families
from exporter.config import ABOUT
from exporter.flags import parser
from tests.harness.dashboards import charts
from tests.harness.programs import ROOT


class Text(NamedTuple):
    """Some text that a person reads, and where it stands."""

    place: str
    text: str


SOFTWARE: Final = (
    r"alerts?|API|clients?|cloro|commands?|dashboards?|exporters?|gateways?|it|jobs?|Kubernetes|Prefect|Prometheus|proxy"
    r"|servers?|sidecar|sharded|system|toolkit|upstream|workers?"
)
NEVER: Final = {
    r"mend(?:s|ed|ing)?": "fix",
    r"anew": "again",
    r"lest": "so that … not",
    r"seldom": "rarely",
    r"who(?:so)?ever|whomever": "anyone who",
    r"(?:there|where)(?:of|in|upon)|whence|thence|hitherto|albeit|amongst|whilst": "an ordinary word",
    r"so it goes": "the same applies to",
    r"died unseen|dies unseen": "crashed unnoticed",
    r"(?:tells?|told|telling) of": "shows, reports, says",
    r"without a word": "without a warning, without an error",
    rf"(?:{SOFTWARE})(?: that| who)? wants?": "needs, requires",
    r"what (?:there is|it is that|is there)": "the name of the thing",
    r"of what (?:is|was|has|waits|holds)": "the name of the thing: waiting tasks, holders",
    r"ever (?:less|later|longer)": "less and less, later each time",
    r"for ever": "forever",
}
"""Regular expression, for whole words -> what to write instead."""

TERMS: Final = {
    r"figures?": "value, result",
    r"(?<!by )mistakes?": "error",
    r"authorit(?:y|ies) of (?:your|its) own": "private CA",
}
"""One word for one thing, in documents: what not to call it -> its word."""


def prose(document: Path) -> Iterator[Text]:
    """Each paragraph of a document without its code, with the number of its first line."""
    text = document.read_text(encoding="utf-8")
    blank = re.sub(
        r"^( *)```.*?^\1```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE
    )
    blank = re.sub(r"`[^`\n]*`", "`…`", blank)
    for paragraph in re.finditer(r"(?:.+\n)+", f"{blank}\n"):
        number = blank.count("\n", 0, paragraph.start()) + 1
        yield Text(f"{document.relative_to(ROOT)}:{number}", paragraph[0])


def documented() -> Iterator[Text]:
    for document in documents():
        yield from prose(document)


def alerts() -> Iterator[Text]:
    """Summaries and descriptions, which somebody on call reads, and the comments on thresholds."""
    for path in sorted((ROOT / "alerts").glob("*.yml")):
        yield Text(path.name, path.read_text(encoding="utf-8"))


def deployed() -> Iterator[Text]:
    """The manifests and units, with their comments."""
    for path in sorted((ROOT / "deploy").rglob("*")):
        if path.suffix in {".yaml", ".yml", ".service", ".socket"} and path.is_file():
            yield Text(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))


def shown() -> Iterator[Text]:
    """What the command and the exposition show, and what a system says about itself."""
    yield Text("--help", parser().format_help())
    yield from (Text(f"HELP of {family.name}", family.help) for family in families())
    for system, about in ABOUT.items():
        yield from (Text(f"{system}: {name}", text) for name, text in about.figures.items())
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        for panel in charts(json.loads(path.read_text(encoding="utf-8"))):
            yield Text(f"{path.name}: {panel['title']}", f"{panel['title']}: {panel['description']}")
    for template in (ROOT / "exporter" / "web" / "templates").iterdir():
        yield Text(template.name, template.read_text(encoding="utf-8"))


MODULES: Final = sorted((ROOT / "exporter").rglob("*.py"))


def strings(module: Path) -> Iterator[Text]:
    """Every text in a module: messages, log lines, settings and docstrings."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(f"{module.relative_to(ROOT)}:{node.lineno}", node.value)


def docstrings(module: Path) -> Iterator[Text]:
    """The docstring of each function of a module that has one, with the function's name."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
            yield Text(f"{module.relative_to(ROOT)}:{node.lineno}: {node.name}", text)


def found(texts: Iterator[Text], patterns: dict[str, str]) -> list[str]:
    """Where a pattern stands in these texts, and what to write instead."""
    compiled = [(re.compile(rf"\b(?:{one})\b", re.IGNORECASE), instead) for one, instead in patterns.items()]
    return [
        f"{place}: {match[0]!r}; write: {instead}"
        for place, text in texts
        for pattern, instead in compiled
        for match in pattern.finditer(" ".join(text.split()))
    ]


def test_documents_use_ordinary_words() -> None:
    assert found(documented(), NEVER | TERMS) == []


def test_alerts_use_ordinary_words() -> None:
    assert found(alerts(), NEVER | TERMS) == []


def test_manifests_use_ordinary_words() -> None:
    assert found(deployed(), NEVER | TERMS) == []


def test_help_uses_ordinary_words() -> None:
    assert found(shown(), NEVER | TERMS) == []


def test_messages_and_docstrings_use_ordinary_words() -> None:
    assert found((text for module in MODULES for text in strings(module)), NEVER) == []


def test_docstrings_of_functions_say_what_they_do() -> None:
    """They say "Return the queues that …", and not "What the queues are"."""
    texts = [text for module in MODULES for text in docstrings(module)]
    assert len(texts) > 300
    question = re.compile(r"(?:What|Which|Who|Whom|Whose|How)\b")
    assert [f"{place}: {text.splitlines()[0]}" for place, text in texts if question.match(text)] == []


@pytest.mark.parametrize(
    "text",
    ["Then mend it.", "The server wants a token.", "It tells of it.", "Whoever is paged", "written anew"],
)
def test_a_wrong_word_is_found(text: str) -> None:
    assert found(iter([Text("here", text)]), NEVER)


@pytest.mark.parametrize(
    "text", ["Amend it, if you want to.", "The tests tell you.", "The latest lesson.", "He wants it."]
)
def test_a_good_word_is_not(text: str) -> None:
    assert not found(iter([Text("here", text)]), NEVER)
