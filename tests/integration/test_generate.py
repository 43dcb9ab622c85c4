"""``fairseq-compress generate``: the translations of fairseq-generate, and timings of a sample of its batches."""

import re

import pytest

from fairseq_compress.cli.main import main
from fairseq_compress.evaluation.timed_generation import _Call, spread
from fairseq_compress.evaluation.timing import Timings
from tests.conftest import PLUGIN, run_command


def translations(output: str) -> list[str]:
    return sorted(line for line in output.splitlines() if line.startswith(("D-", "P-")))


@pytest.mark.parametrize("part", ["test2", "test3"])
def test_translations_are_those_of_fairseq_generate(data_bin, teacher, part) -> None:
    arguments = [
        data_bin, "--user-dir", PLUGIN, "--task", "compressed_translation", "-s", "en", "-t", "cs", "--cpu", "--path",
        teacher, "--gen-subset", part, "--beam", "2", "--max-len-b", "5", "--max-tokens", "1200",
    ]  # fmt: skip
    timed = run_command("fairseq-compress", "time", "--runs", 4, "--", *arguments).stdout
    assert translations(timed) == translations(run_command("fairseq-generate", *arguments).stdout) != []
    (sentences,) = re.findall(r"^# sentences: (\d+)$", timed, re.MULTILINE)
    (seconds,) = re.findall(r"^# seconds: (.*)$", timed, re.MULTILINE)
    assert len(seconds.split()) == 4
    assert all(float(value) > 0 for value in seconds.split())
    if part == "test2":
        assert sentences == "9"
    else:
        assert 500 <= int(sentences) < 1071
        assert timed.count("D-") == 1071


def test_fewer_than_three_timings_are_refused() -> None:
    result = run_command("fairseq-compress", "time", "--runs", 2, "--", "bin", check=False)
    assert (result.returncode, result.stdout) == (
        1,
        "fairseq-compress time: error: --runs: must be in [3, inf), got 2\n",
    )


def test_options_of_the_search_are_for_checkpoints_and_directories() -> None:
    result = run_command("fairseq-compress", "time", "--beam", 2, "--min-len", 3, "--", "bin", check=False)
    assert (result.returncode, result.stdout) == (
        1,
        "fairseq-compress time: error: --beam, --min-len: must be among the arguments of fairseq-generate, after --\n",
    )


def test_the_search_of_a_directory_may_be_changed(tmp_path, monkeypatch) -> None:
    found = {}
    monkeypatch.setattr("fairseq_compress.evaluation.timing.translate_and_time", lambda *given: found.update(
        search=given[3].search) or ([], Timings(0, [1.0] * 3)))  # fmt: skip
    (tmp_path / "text").write_text("a\n")
    assert main(["time", "model", "--source", str(tmp_path / "text"), "--beam", "2"]) == 0
    assert found == {"search": {"beam": 2}}


def test_batches_of_a_sample_are_spread_over_all_lengths() -> None:
    def places(sizes: list[int]) -> list[int]:
        calls = [_Call(lambda: None, size) for size in sizes]
        return [calls.index(call) for call in spread(calls)]

    assert places([100, 90]) == [0, 1]
    assert places([200] * 4) == [0, 1, 2, 3]  # at least four
    assert places([100] * 20) == [0, 4, 9, 14, 19]
    assert places([250] * 40) == [0, 13, 26, 39]
    assert places([]) == []
