"""Fingerprints are of the names until version 0.2: a pipeline that was begun with them is not run again."""

import subprocess

import pytest

from fairseq_compress.cli.renamed import OPTIONS, VERBS, with_new_names
from tests.helpers.fake_pipeline import ROOT, Pipeline

ROWS = """
STUDENTS=(
    "k-best transformer_student_tiny k-best sequence_level_kd"
    "cached transformer_student_tiny gold word_level_kd@8"
    "own transformer_small gold@40 dual_vocab_kd"
)
EXPORT=("small cached --quantization int8")
KD_DROP_WORST=0.1 KD_REVERSE_CHECKPOINT=$RAW_DIR/reverse.pt
"""
NO_STEPS = {"report", "compare", "translate"}  # of what was made before; the report is another page now
PACK = "quantize --format packed --checkpoint c.pt --output p.safetensors --plan int4"


def former_words(words: list[str]) -> list[str]:
    script = 'source "$0"; former_words "$@"; printf "%s\\n" "${FORMER_WORDS[@]}"'
    command = ["bash", "-c", script, str(ROOT / "scripts/lib/fingerprints.sh"), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    pipeline = Pipeline(tmp_path_factory.mktemp("former") / "run")
    (pipeline.raw / "reverse.pt").write_text("reverse\n")
    pipeline.append(ROWS)
    commands = [command for command in pipeline.dry_run() if "fairseq-compress" in command]
    return [command[command.index("fairseq-compress") + 1 :] for command in commands] + [PACK.split()]


def test_former_names_are_the_old_ones_of_the_command(commands: list[list[str]]) -> None:
    verbs, options = set(), set()
    for command in commands:
        program, *former = former_words(["bin/fairseq-compress", *command])
        assert program == "bin/fairseq-compress"
        assert with_new_names(former) == command
        verbs.add(former[0])
        options |= {(former[0], word) for word in former}
    assert verbs >= {*VERBS, *OPTIONS} - NO_STEPS
    renamed = [(verb, option) for verb, table in OPTIONS.items() for option in table]
    renamed += [(verb, option) for verb, new in VERBS.items() for option in new.options]
    assert {pair for pair in renamed if pair[0] not in NO_STEPS} - options == {("average", "--inputs")}


def test_other_commands_stay() -> None:
    for words in (["bin/fairseq-train", "data", "--source", "x"], ["bash", "join.sh", "a"], ["head", "-n", "-3"]):
        assert former_words(words) == words
    launched = ["bash", "lib/extend_folder.sh", "a", "b", "bin/fairseq-compress", "kd-data", "binarize", "--data", "d"]
    assert former_words(launched) == [*launched[:5], "binarize-hypotheses", "--data", "d"]
