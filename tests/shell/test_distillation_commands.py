"""The stages of distillation: one n-best file for all kinds of data, one cache for each corpus and K; the students."""

import shutil
from pathlib import Path

import pytest
from test_pipeline_restart import kill_inside, steps

from tests.helpers.fake_pipeline import Pipeline, find, name_of, value

EveryKind = tuple[Pipeline, list[list[str]]]


def trained(commands: list[list[str]], name: str) -> list[str]:
    (command,) = find(commands, "fairseq-train", "--save-dir", f"WORK/students/{name}/checkpoints")
    return command


def test_the_teacher_translates_once(every_kind: EveryKind) -> None:
    (nbest,) = find(every_kind[1], "nbest")
    expected = {
        "--checkpoint": "WORK/teacher/averaged.pt", "--source": "WORK/prepared/train/text.en", "--data": "WORK/bin",
        "--sentencepiece-model": "WORK/vocabulary/spm.model", "--output": "WORK/kd/nbest/train.nbest", "--beam": "3",
        "--nbest": "3", "--max-tokens": "2000", "--lenpen": "1.0", "--max-len-a": "1.5", "--max-len-b": "20",
        "--precision": "bfloat16", "--long-lines": "skip", "--device": "cpu",
    }  # fmt: skip
    assert {option: value(nbest, option) for option in expected} == expected
    (encode,) = find(every_kind[1], "kd-data encode")
    assert value(encode, "--source") == "WORK/prepared/train/text.en"
    assert value(encode, "--pieces") == "WORK/encoded/train.en"


def test_each_kind_is_selected_from_the_same_file(every_kind: EveryKind) -> None:
    selected = {value(command, "--mode"): command for command in find(every_kind[1], "kd-data select")}
    assert list(selected) == ["best", "k-best", "interpolate"]
    for command in selected.values():
        assert value(command, "--nbest") == "WORK/kd/pieces/train.nbest"
        assert value(command, "--source") == "WORK/encoded/train.en"
        assert value(command, "--sentencepiece-model") == "WORK/vocabulary/spm.model"
        assert "--k" not in command
        assert "--drop-worst" not in command
    assert value(selected["k-best"], "--output-nbest") == "WORK/kd/k-best/train.nbest"
    assert value(selected["interpolate"], "--reference") == "WORK/prepared/train/text.cs"
    assert value(selected["interpolate"], "--metric") == "bleu"


def test_line_counts_are_those_of_the_selection(every_kind: EveryKind) -> None:
    """The fake selection drops the first of seven lines, and the joined corpus has both."""
    work = every_kind[0].work
    for kind in ("kd", "k-best", "interpolated"):
        assert (work / f"bin-{kind}/train.en-cs.en.idx").read_bytes()[18] == 6
        assert (work / f"bin-{kind}/valid.en-cs.cs.idx").read_bytes()[18] == 3
    assert (work / "bin-both/train.en-cs.cs.idx").read_bytes()[18] == 7
    assert (work / "bin-both/train1.en-cs.cs.idx").read_bytes()[18] == 6


def test_k_best_folder_has_the_hypotheses_beside_the_best(every_kind: EveryKind) -> None:
    work = every_kind[0].work
    (command,) = find(every_kind[1], "kd-data binarize")
    assert value(command, "--nbest") == "WORK/kd/k-best/train.nbest"
    assert value(command, "--source") == "WORK/kd/k-best/train.en"
    assert len((work / "bin-k-best/train.en-cs.kbest.bin").read_text().splitlines()) == 6 * 3
    assert not list((work / "kd/bin-k-best").glob("*kbest*"))
    best = (work / "bin-k-best/train.en-cs.cs.bin").read_text().splitlines()
    assert best[0] == "▁překlad 1 en train 1 0"


def test_one_cache_for_each_corpus_and_k(every_kind: EveryKind) -> None:
    caches = find(every_kind[1], "cache-teacher")
    assert [(value(cache, "--data"), value(cache, "--top-k")) for cache in caches] == [
        ("WORK/bin-both", "8"),
        ("WORK/bin", "32"),
    ]
    expected = {
        "--output": "WORK/cache/both-8", "--checkpoint": "WORK/teacher/averaged.pt", "--teacher-data": "WORK/bin",
        "--temperature": "1.0", "--dtype": "float16", "--precision": "bfloat16", "--max-tokens": "8000",
        "--device": "cpu", "--source-lang": "en", "--target-lang": "cs",
    }  # fmt: skip
    assert {option: value(caches[0], option) for option in expected} == expected


def test_students_read_what_their_rows_say(every_kind: EveryKind) -> None:
    commands = every_kind[1]
    folders = {"live": "both", "cached": "both", "one-best": "kd", "k-best": "k-best", "near": "interpolated"}
    for name, kind in folders.items():
        assert trained(commands, name)[1] == f"WORK/bin-{kind}"
    live, cached, wider = (trained(commands, name) for name in ("live", "cached", "wider"))
    assert value(live, "--teacher-data") == "WORK/bin"
    assert "--teacher-cache" not in live
    for command, cache in ((cached, "both-8"), (wider, "gold-32")):
        assert value(command, "--criterion") == "word_level_kd"
        assert value(command, "--teacher-cache") == f"WORK/cache/{cache}"
        assert value(command, "--teacher-path") == "WORK/teacher/averaged.pt"
        assert "--teacher-data" not in command
        assert (value(command, "--kd-alpha"), value(command, "--kd-temperature")) == ("0.5", "1.0")
    assert value(cached, "--upsample-primary") == "1"
    assert "--upsample-primary" not in wider
    assert value(trained(commands, "one-best"), "--criterion") == "fused_label_smoothed_cross_entropy"
    k_best = trained(commands, "k-best")
    assert value(k_best, "--criterion") == "sequence_level_kd"
    assert value(k_best, "--sequence-kd-temperature") == "1.0"
    assert "--teacher-path" not in k_best


def test_how_many_hypotheses(pipeline: Pipeline) -> None:
    pipeline.append(
        'STUDENTS=("a transformer_small k-best sequence_level_kd" "b transformer_small interpolated word_level_kd")'
    )
    pipeline.append("\nKD_NBEST=2 KD_K_BEST=1 KD_INTERPOLATION=chrf SEQUENCE_KD_TEMPERATURE=0.5\n")
    commands = pipeline.dry_run()
    assert value(find(commands, "nbest")[0], "--nbest") == "2"
    k_best, interpolated = find(commands, "kd-data select")
    assert value(k_best, "--k") == value(interpolated, "--k") == "1"
    assert value(interpolated, "--metric") == "chrf"
    assert value(find(commands, "fairseq-train")[1], "--sequence-kd-temperature") == "0.5"


def test_a_reverse_model_drops_the_worst(distilled: Pipeline) -> None:
    reverse = distilled.folder / "reverse.pt"
    reverse.write_text("a model")
    distilled.set(KD_DROP_WORST="0.05", KD_REVERSE_CHECKPOINT=f"'{reverse}'")
    output = distilled.run("--from", "05", "--to", "05").stdout
    assert steps(output, "skip")[:2] == ["nbest", "encode-hypotheses"]
    commands = distilled.recorded()
    score, *selected = (command for command in commands if name_of(command) in ("kd-data score", "kd-data select"))
    assert value(score, "--checkpoint") == str(reverse)
    assert value(score, "--nbest") == "WORK/kd/pieces/train.nbest"
    assert value(score, "--source") == "WORK/encoded/train.en"
    assert value(score, "--data") == "WORK/bin"
    assert len(selected) == 3
    for command in selected:
        assert value(command, "--drop-worst") == "0.05"
        assert value(command, "--reverse-scores") == "WORK/kd/reverse/scores"


def test_no_distillation_no_work(pipeline: Pipeline) -> None:
    pipeline.set(STUDENTS='("a transformer_small gold label_smoothed_cross_entropy")')
    output = pipeline.run("--to", "06").stdout
    assert "skip make-kd-corpus (no student learns from it)" in output
    assert "skip cache-teacher (no student learns from a cache)" in output
    assert not (pipeline.work / "kd").exists()


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({"CACHE_DTYPE": "float32"}, "cache-both-8 cache-gold-32 train-cached train-smaller train-wider"),
        (
            {"KD_K_BEST": "2"},
            "select-k-best binarize-k-best binarize-hypotheses select-interpolated binarize-interpolated "
            "train-k-best train-near",
        ),
        ({"SEQUENCE_KD_TEMPERATURE": "2"}, "train-k-best"),
    ],
)
def test_a_setting_reruns_what_depends_on_it(distilled: Pipeline, settings: dict[str, str], again: str) -> None:
    distilled.set(**settings)
    assert steps(distilled.run("--to", "07").stdout, "run") == again.split()


@pytest.mark.parametrize(
    ("action", "folder"), [("nbest", "kd"), ("cache-teacher", "cache"), ("kd-data binarize", "bin-k-best")]
)
def test_kill_inside_a_step(distilled: Pipeline, every_kind: EveryKind, action: str, folder: str) -> None:
    shutil.rmtree(distilled.work / folder)
    kill_inside(distilled, action)
    output = distilled.run("--to", "07").stdout
    assert "(it was interrupted)" in output
    assert distilled.results() == every_kind[0].results()
    if action == "nbest":  # it went on where it was
        assert "4 of 7 sentences" in output
        assert "3 of 7 sentences" not in output


def test_a_lost_line_stops_the_pipeline(distilled: Pipeline) -> None:
    shutil.rmtree(distilled.work / "kd")
    error = distilled.run("--from", "05", status=1, FAKE_LOSE="kd-data select").stderr
    assert error.startswith("05_make_kd_corpus.sh: error: line counts differ: ")
    assert error.count("\n") == 1


def test_students_at_a_time(distilled: Pipeline, every_kind: EveryKind) -> None:
    shutil.rmtree(distilled.work / "students")
    output = distilled.run("--from", "07", "--to", "07", JOBS="3").stdout
    names = {command[command.index("--save-dir") + 1].split("/")[-2] for command in distilled.recorded()}
    assert names == {"live", "cached", "smaller", "wider", "one-best", "k-best", "near"}
    for name in names:
        assert f"{name}: run train-{name}\n" in output
    assert distilled.results() == every_kind[0].results()


def test_a_training_beside_others_fails(distilled: Pipeline) -> None:
    shutil.rmtree(distilled.work / "students")
    broken = Path(distilled.environment["FC_BIN"]) / "fairseq-train"
    broken.write_text("#!/bin/sh\necho 'the reason'\nexit 3\n")
    result = distilled.run("--from", "07", status=1, JOBS="2")
    assert "step train-live failed with exit status 3; see " in result.stdout
    assert result.stderr == "07_train_students.sh: error: a training failed, see above\n"
    assert "train-near" not in result.stdout


def test_trainings_beside_each_other_die_with_the_pipeline(distilled: Pipeline) -> None:
    shutil.rmtree(distilled.work / "students")
    distilled.environment["JOBS"] = "2"
    kill_inside(distilled, "fairseq-train")
    distilled.environment["JOBS"] = "1"
    assert "(it was interrupted)" in distilled.run("--to", "07").stdout


SEEDS = """
BASELINE=gold
STUDENTS=(
    "gold.1 transformer_small gold label_smoothed_cross_entropy --seed 1"
    "gold.2 transformer_small gold label_smoothed_cross_entropy --seed 2"
    "kd.1 transformer_small gold word_level_kd --seed 1"
    "kd.2 transformer_small gold word_level_kd --seed 2"
)
"""


def test_comparison_with_a_baseline_seed_by_seed(pipeline: Pipeline) -> None:
    pipeline.append(SEEDS)
    output = pipeline.run().stdout
    commands = pipeline.recorded()
    scores = {value(command, "--name"): command for command in find(commands, "score")}
    assert "--baseline" not in scores["teacher"] + scores["gold.1"] + scores["gold.2"]
    for seed in ("1", "2"):
        assert value(scores[f"kd.{seed}"], "--baseline") == f"WORK/translations/gold.{seed}.cs"
        assert {"system=kd", f"seed={seed}", "seconds_per_update=0.250"} <= set(scores[f"kd.{seed}"])
    assert name_of(commands[-1]) == "report"
    names = ["teacher.json", "gold.1.json", "gold.2.json", "kd.1.json", "kd.2.json"]
    assert (pipeline.work / "report/report.md").read_text().splitlines()[1:] == names
    assert output.endswith(f"report: {pipeline.work}/report/report.md\n")


def test_the_experiment(pipeline: Pipeline) -> None:
    commands = pipeline.dry_run("experiments/distillation-multi30k-en-cs.env", SEEDS="1 7")
    trainings = find(commands, "fairseq-train")
    assert len(trainings) == 1 + 9 * 2
    teacher, *students = trainings
    assert value(teacher, "--max-epoch") == "8"
    assert [value(command, "--seed") for command in students] == ["1", "7"] * 9
    assert len({value(command, "--max-update") for command in students}) == 1
    assert {value(command, "--encoder-embed-dim") for command in students} == {"128"}
    assert [value(command, "--top-k") for command in find(commands, "cache-teacher")] == ["8", "32", "8"]
    long = pipeline.dry_run(LONG="1")
    assert value(find(long, "fairseq-train")[1], "--max-update") == "20000"
    assert len(find(long, "fairseq-train")) == 1 + 9 * 3
