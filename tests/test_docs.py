"""What the site says of the code, and where its links and the README's lead; `make docs` builds all of it."""

import argparse
import re
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def from_code():
    """The extension that writes the site's tables."""
    pytest.importorskip("sphinx", reason="the site needs `pip install '.[doc]'`")
    sys.path.insert(0, str(REPOSITORY / "docs" / "_ext"))
    try:
        import from_code

        yield from_code
    finally:
        sys.path.pop(0)


def test_every_option_is_listed(from_code):
    parser = from_code.options.build_parser()
    listed = from_code.option_tables(parser)
    wanted = [action.option_strings for action in parser._actions if action.help != argparse.SUPPRESS]
    assert len(wanted) > 40
    assert [name for names in wanted for name in names if f"`{name}`" not in listed] == []


def test_every_derivative_key_and_limit_is_listed(from_code):
    outputs, sidecars = from_code._example()
    files, keys, limits = from_code.file_table(), from_code.key_table(), from_code.limit_table()
    assert [output.name for output in outputs.values() if (f"`{output.name}`" in files) == output.in_template] == []
    assert [key for role in ("mask", "network_DK_kls") for key in sidecars[role] if f"`{key}`" not in keys] == []
    assert [name for name in from_code.quality.LIMITS if f"`{name}`" not in limits] == []


@pytest.mark.parametrize("text", ["a_b*c <d> [e] {f} \\g", "see --mem or -v, not non-zero", "`kept_as` it_is"])
def test_plain_text_is_shown_unchanged(from_code, text):
    shown = MarkdownIt().parseInline(from_code._escaped(text))[0].children
    assert "".join(token.content for token in shown) == text.replace("`", "")


def test_links_of_the_readme_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    assert len(targets) > 10
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []
