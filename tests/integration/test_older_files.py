"""Files that version 0.2.0.dev0 wrote, in what users do with them: the same numbers come out.

``tests/fixtures/make_files.py`` made them and ``expected.json`` from made-up text. Only public commands are called.
"""

import json
import shutil

import pytest

from tests.conftest import ROOT, run_command
from tests.fixtures import commands
from tests.fixtures.commands import CACHE, FILES, NBEST, SCORE, SHAPES, WORD_KD, generate, verb

EXPECTED = json.loads((ROOT / FILES / "expected.json").read_text())
EIGHT_BITS = 0.05  # processors multiply integers in different ways
PLAIN, PLANNED, CODES = FILES / "plain.pt", FILES / "planned.pt", FILES / "codes.safetensors"


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    """Paths are as they were when the files were made."""
    monkeypatch.chdir(ROOT)


def check(found, expected, tolerance=1e-5):
    """Texts are equal, scores nearly so."""
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=tolerance)


def check_training(found, name):
    assert found["loss"] == pytest.approx(EXPECTED[name]["loss"], abs=2e-3)
    check(found["translations"], EXPECTED[name]["translations"], tolerance=1e-4)


@pytest.mark.parametrize("name", EXPECTED["generate"])
def test_checkpoints_translate(name):
    check(generate(FILES / f"{name}.pt"), EXPECTED["generate"][name])
    if name in SHAPES:  # the others are of the plain one's
        check(commands.translate_checkpoint(FILES / f"{name}.pt"), EXPECTED["translate"][f"{name}.pt"])


@pytest.mark.parametrize("name", EXPECTED["generate packed"])
def test_packed_files_translate(name):
    packed = FILES / f"{name}.safetensors"
    check(generate(packed), EXPECTED["generate packed"][name])
    check(commands.translate_checkpoint(packed), EXPECTED["translate"][packed.name])


def test_stock_fairseq_translates_with_a_materialized_checkpoint():
    check(generate(FILES / "materialized.pt", plugin=False), EXPECTED["generate materialized"])


@pytest.mark.parametrize("name", EXPECTED["translate directory"])
def test_model_directories_translate(name):
    found, expected = commands.translate(FILES / name), EXPECTED["translate directory"][name]
    if "int8" in name:  # the first of both translations of each line
        check(found[::2], expected[::2], EIGHT_BITS)
    else:
        check(found, expected)


@pytest.mark.parametrize("name", EXPECTED["parameters"])
def test_describe(name):
    assert commands.parameters(FILES / name) == EXPECTED["parameters"][name]


def test_a_training_with_a_plan_resumes(tmp_path):
    """In the middle of its noise schedule, with the optimizer's state and ranges of activations."""
    found = commands.resume(PLANNED, tmp_path / "resumed", 201, *SHAPES["planned"], *WORD_KD)
    check_training(found, "resume planned")
    found = commands.average(PLANNED, tmp_path / "resumed" / "checkpoint_last.pt", tmp_path / "average")
    check(found, EXPECTED["average planned"], tolerance=1e-4)


def test_a_training_from_hidden_states_resumes(tmp_path):
    """From its layer phase, with learned maps, into the phase of the output."""
    found = commands.resume(FILES / "hidden_state_kd.pt", tmp_path / "resumed", 6, *commands.HIDDEN_STATES)
    check_training(found, "resume hidden_state_kd")


def test_a_dual_vocabulary_training_resumes(tmp_path):
    resumed = commands.resume_dual(FILES / "dual.pt", tmp_path / "resumed", 101, "--student-embeddings", "own")
    check_training(resumed, "resume dual")


def test_a_dual_vocabulary_training_of_another_default_is_refused(tmp_path):
    shutil.copy(FILES / "dual.pt", tmp_path / "checkpoint_last.pt")
    command = ["fairseq-train", *commands.DUAL, "--max-update", 101, "--save-dir", tmp_path]
    result = run_command(*command, check=False)
    assert result.returncode == 1
    assert "error: --student-embeddings: must be own, as in the checkpoint, got projected" in result.stdout


def test_a_dual_vocabulary_checkpoint_gives_its_student(tmp_path):
    check(commands.extract_student(FILES / "dual.pt", tmp_path / "student"), EXPECTED["extract-student"])


def test_average(tmp_path):
    found = commands.average(PLAIN, FILES / "hidden_state_kd.pt", tmp_path / "average")
    check(found, EXPECTED["average"])


def test_a_packed_file_is_materialized(tmp_path):
    check(commands.materialize(CODES, tmp_path / "plain"), EXPECTED["materialize packed"])


def test_pack(tmp_path):
    check(commands.pack(FILES / "factorized.pt", tmp_path / "packed"), EXPECTED["pack"])


def test_export(tmp_path):
    check(commands.export(CODES, tmp_path / "onnx", "onnx", "float32"), EXPECTED["export"])


def test_training_from_a_cache_of_a_teacher(tmp_path):
    check_training(commands.train_from_cache(tmp_path / "cached"), "train from cache")


def test_training_from_k_best_data(tmp_path):
    check_training(commands.train_from_k_best(tmp_path / "k-best"), "train from k-best")


# Verb, its options, its output, and the files in it that hold more than metadata.
SHARDED = {
    "nbest": (NBEST, "nbest/list", ["list"]),
    "score-nbest": (SCORE, "nbest/scores", ["scores"]),
    "cache-teacher": (CACHE, "cache", ["cache/train/records.bin"]),
}


@pytest.mark.parametrize("name", SHARDED)
def test_finished_work_is_up_to_date(name, tmp_path):
    """Nothing is computed or written again."""
    options, path, _ = SHARDED[name]
    if (FILES / path).is_dir():
        shutil.copytree(FILES / path, tmp_path / "cache")
    else:
        shutil.copytree((FILES / path).parent, tmp_path, dirs_exist_ok=True)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    verb(name, *options, "--output", tmp_path / path.rpartition("/")[2])
    after = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in after} == before


@pytest.mark.parametrize("name", SHARDED)
def test_half_done_work_is_finished(name, tmp_path):
    """The second of two processes had ended; the first comes later."""
    options, path, made = SHARDED[name]
    shutil.copytree(FILES / "half", tmp_path, dirs_exist_ok=True)
    output = path.rpartition("/")[2]
    verb(name, *options, "--output", tmp_path / output, RANK="0", WORLD_SIZE="2")
    for file in made:
        assert (tmp_path / file).read_bytes() == ((FILES / path).parent / file).read_bytes()


def test_scores_of_a_reverse_model(tmp_path):
    """Of the old list, made anew."""
    verb("kd-data", "score", *SCORE, "--output", tmp_path / "scores")
    found, expected = (
        [float(line.split()[-1]) for line in path.read_text().splitlines()]
        for path in (tmp_path / "scores", FILES / "nbest" / "scores")
    )
    assert len(expected) > 30
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_selection_from_old_lists_and_scores(tmp_path):
    names = {"source": "selected.en", "target": "selected.cs", "nbest": "selected.nbest"}
    outputs = [item for kind, name in names.items() for item in (f"--output-{kind}", tmp_path / name)]
    verb("kd-data", "select", *commands.SELECT, *outputs)
    for name in names.values():
        assert (tmp_path / name).read_bytes() == (FILES / "nbest" / name).read_bytes()


def test_old_selections_are_binarized(tmp_path):
    """And train as the binarized data of then."""
    data = tmp_path / "k-best"
    shutil.copytree(FILES / "k-best", data, ignore=shutil.ignore_patterns("*kbest*"))
    selected = ["--nbest", FILES / "nbest/selected.nbest", "--source", FILES / "nbest/selected.en"]
    verb("kd-data", "binarize", *selected, "--data", data)
    check_training(commands.train_from_k_best(tmp_path / "training", data), "train from k-best")


def test_records_in_reports(tmp_path):
    found = commands.report([FILES / f"records/{name}.json" for name in ("teacher", "plain")], tmp_path / "report")
    for one, expected in zip(found, EXPECTED["report"], strict=True):
        assert one == pytest.approx(expected)
