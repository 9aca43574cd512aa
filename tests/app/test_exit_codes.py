"""One table of exit codes, shown in several places."""

import pickle
import re
from pathlib import Path

import pytest

from unibrain_bids import errors
from unibrain_bids.app.options import build_parser
from unibrain_bids.errors import ExitCode, UnibrainError

README = Path(__file__).parents[2] / "README.md"


def test_readme_shows_the_table():
    text = README.read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| code \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert table.splitlines() == [f"| {code:d} | {code.meaning} |" for code in ExitCode]


def test_help_shows_the_table():
    shown = build_parser().format_help()
    assert all(re.search(rf"^ +{code:d}  {re.escape(code.meaning)}$", shown, re.MULTILINE) for code in ExitCode)


@pytest.mark.parametrize("error", UnibrainError.__subclasses__())
def test_every_error_has_a_code_of_its_own_table(error):
    assert error.exit_code in set(ExitCode) - {ExitCode.SUCCESS, ExitCode.INTERNAL}
    assert getattr(errors, error.__name__) is error


def test_codes_are_plain_numbers():
    assert ExitCode(6) is ExitCode.OUTPUT
    assert pickle.loads(pickle.dumps(ExitCode.OUTPUT)) is ExitCode.OUTPUT
    assert ExitCode.SCANS_FAILED == 5
