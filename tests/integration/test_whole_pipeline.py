"""The whole pipeline with the real commands, a few updates on a few hundred lines: raw text in, report out."""

import json
import os
import subprocess

from tests.conftest import BIN, ROOT

CONFIG = """
SOURCE_LANG=en
TARGET_LANG=cs
RAW_DIR=$WORK_DIR/raw
GENERATE=(data/demo/generate.py --output-dir @OUT@ --seed 1 --train 300 --valid 21 --test 13)
TRAIN_PREFIXES=("$RAW_DIR/train")
VALID_PREFIX=$RAW_DIR/valid
TEST_PREFIX=$RAW_DIR/test
VOCAB_SIZE=420
sizes=(
    --encoder-layers 1 --encoder-embed-dim 16 --encoder-ffn-embed-dim 16 --encoder-attention-heads 2
    --decoder-layers 1 --decoder-embed-dim 16 --decoder-ffn-embed-dim 16 --decoder-attention-heads 2
)
TEACHER_EXTRA=("${sizes[@]}")
TEACHER_MAX_TOKENS=600
TEACHER_LR=0.05
TEACHER_WARMUP=1
TEACHER_MAX_UPDATE=4
TEACHER_SAVE_INTERVAL=2
TEACHER_AVERAGE_LAST=2
STUDENT_EXTRA=("${sizes[@]}")
STUDENTS=("both transformer_student_tiny both word_level_kd@4")
STUDENT_MAX_TOKENS=600
STUDENT_MAX_UPDATE=2
STUDENT_SAVE_INTERVAL=2
STUDENT_AVERAGE_LAST=1
EXPORT=("both-int8 both --quantization int8 --max-bleu-loss 100")
KD_BEAM=2
BEAM=2
MAX_LEN_A=0
MAX_LEN_B=8
REPORT_NOTE="A test."
"""
MORE_STUDENTS = """
STUDENTS+=(
    "k-best transformer_student_tiny k-best sequence_level_kd"
    "near transformer_student_tiny interpolated fused_label_smoothed_cross_entropy"
)
"""


def run(config, work, *arguments) -> list[str]:
    """Run the stages; the lines that the scripts themselves say."""
    result = subprocess.run(
        ["bash", str(ROOT / "scripts" / "run_all.sh"), str(config), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550, check=False,
        env=os.environ
        | {"WORK_DIR": str(work), "FC_BIN": str(BIN), "OMP_NUM_THREADS": "1", "DEVICE": "cpu", "JOBS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
    return [line for line in result.stdout.splitlines() if line.startswith(("run ", "skip "))]


def test_raw_text_to_report_then_nothing_left_to_do(tmp_path):
    config, work = tmp_path / "mini.env", tmp_path / "work"
    config.write_text(CONFIG)
    first = run(config, work)
    assert all(line.startswith("run ") for line in first)

    for name, role in (("teacher", "teacher"), ("both", "student")):
        record = json.loads((work / "translations" / f"{name}.json").read_text())
        assert record["lines"]["hypothesis"] == record["lines"]["reference"] == 13
        assert record["facts"]["role"] == role
        assert record["checkpoint"]["bytes_on_disk"] == (
            work / ("teacher" if role == "teacher" else f"students/{name}") / "averaged.pt"
        ).stat().st_size  # fmt: skip
        assert "version:" in record["bleu"]["signature"]
        model = record["checkpoint"]
        assert model["architecture"] == ("transformer_small" if role == "teacher" else "transformer_student_tiny")
        assert (model["encoder_layers"], model["decoder_layers"]) == (1, 1)
        assert model["updates"] == (4 if role == "teacher" else 2)
        assert (len(record["speed"]["timings"]), record["speed"]["timed_sentences"]) == (3, 13)
    check_export(work)
    page = (work / "report" / "report.md").read_text()
    assert "A test." in page
    assert all(f"| {name} |" in page for name in ("teacher", "both", "both-int8"))
    table = (work / "report" / "report.json").read_text()
    assert [system["name"] for system in json.loads(table)["systems"]] == ["teacher", "both", "both-int8"]
    assert str(tmp_path) not in table
    lines = (work / "prepared" / "train" / "text.en").read_text().splitlines()
    assert sentences(work / "bin" / "train.en-cs.cs.idx") == len(lines)
    report = json.loads((work / "kd" / "kd" / "report.json").read_text())
    assert report["kept"] + sum(report["dropped"].values()) == report["sources"] == len(lines)
    assert report["kept"] == sentences(work / "bin-kd" / "train.en-cs.cs.idx")
    cache = json.loads((work / "cache" / "both-4" / "train" / "meta.json").read_text())
    assert cache["sentences"] == len(lines) + report["kept"]
    assert cache["k"] == 4

    second = run(config, work)
    assert [line.replace("run ", "skip ") for line in first] == second
    more_students(config, work, len(lines))


def check_export(work):
    record = json.loads((work / "translations" / "both-int8.json").read_text())
    assert record["checkpoint"]["bytes"] < record["checkpoint"]["bytes_float32"]
    assert record["lines"]["hypothesis"] == record["speed"]["timed_sentences"] == 13
    assert len(record["speed"]["timings"]) == 3
    assert (record["facts"]["role"], record["facts"]["of"]) == ("exported", "both")


def more_students(config, work, lines):
    """Their data come from the translations that are there."""
    config.write_text(CONFIG + MORE_STUDENTS)
    said = run(config, work, "--to", "07")
    new = [
        *("select-k-best", "binarize-k-best", "binarize-hypotheses"),
        *("select-interpolated", "binarize-interpolated", "train-k-best", "train-near"),
    ]
    assert [line for line in said if line.startswith("run ")] == [f"run {step}" for step in new]
    hypotheses = json.loads((work / "bin-k-best" / "train.en-cs.kbest.json").read_text())
    assert hypotheses["sentences"] == sentences(work / "bin-k-best" / "train.en-cs.en.idx") <= lines
    assert hypotheses["sentences"] < hypotheses["hypotheses"] <= 2 * lines


def sentences(index) -> int:
    """The number in the header of a binarized file."""
    return int.from_bytes(index.read_bytes()[18:26], "little")
