"""Translations of ``fairseq-generate`` on the small binarized data of the tests."""

import re

from tests.conftest import PLUGIN, run_command


def generated(path, data_bin):
    """The nine hypotheses of the subset ``test2`` and their scores, token by token."""
    log = run_command(
        "fairseq-generate", data_bin, "--user-dir", PLUGIN, "-s", "en", "-t", "cs", "--cpu", "--path", path,
        "--gen-subset", "test2", "--beam", 3, "--max-len-b", 6,
    ).stdout  # fmt: skip
    found = re.findall(r"^[HP]-\d+\t.*$", log, re.MULTILINE)
    assert len(found) == 18
    return found
