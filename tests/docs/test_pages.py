"""The pages of the documentation: links that resolve, lengths, one form of code blocks."""

import re
from urllib.parse import urlparse

import pytest

from tests.helpers.pages import PAGES, ROOT, anchors, links, page_name, prose_lines

every_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


@every_page
def test_links_resolve(page):
    for line, target in links(page.read_text()):
        if re.match(r"[a-z]+:", target):
            url = urlparse(target)
            assert (url.scheme, bool(url.netloc)) == ("https", True), f"line {line}: {target}"
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"line {line}: {target} does not exist"
        assert linked.is_relative_to(ROOT), f"line {line}: {target} is outside of the project"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked.read_text()), f"line {line}: no heading makes #{anchor} in {linked.name}"


@every_page
def test_length_and_form(page):
    text = page.read_text()
    count = len(text.splitlines())
    assert count <= (199 if page.name == "README.md" and page.parent == ROOT else 200), f"{count} lines"
    assert len(re.findall(r"^# ", text, re.M)) >= 1
    previous = ""
    for number, line in prose_lines(text):
        lists = re.match(r"\s*([-*+]|\d+\.) ", previous) or previous.startswith("    ")
        assert not line.startswith("    ") or lists, f"line {number}: code must be in a fenced block"
        previous = line if line.strip() else previous


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for _, target in links(page.read_text()):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.exists():
                waiting.append(path)
    assert {page_name(page) for page in PAGES} <= {page_name(page) for page in reached if page.is_relative_to(ROOT)}


def test_anchors():
    text = "# A `--b` page\n## The same\n## The same\n### [Linked](x.md), *so*: 100%\n```text\n# not one\n```\n"
    assert anchors(text) == {"a---b-page", "the-same", "the-same-1", "linked-so-100"}
