"""What the pipeline runs: which commands, in which order, with which arguments."""

import pytest

from fairseq_compress.languages import CODE
from tests.helpers.fake_pipeline import ROOT, Pipeline, name_of, value

FirstRun = tuple[Pipeline, str, list[list[str]]]
TRANSLATE = ["time --", "kd-data collect", "decode"]
ORDER = [
    *["prepare"] * 3, "train-vocabulary", *["encode"] * 6, "fairseq-preprocess",
    "fairseq-train", "average",
    "nbest", "kd-data encode", "kd-data select", "fairseq-preprocess",
    *["fairseq-train"] * 2, *["average"] * 2, *TRANSLATE * 3, *["score"] * 3, "report",
]  # fmt: skip


def test_commands_in_order(first_run: FirstRun) -> None:
    assert [name_of(command) for command in first_run[2]] == ORDER


def test_language_codes_of_any_form(pipeline: Pipeline) -> None:
    codes = {"en": "eng_Latn", "cs": "zh-Hant"}
    for path in sorted(pipeline.raw.iterdir()):
        path.rename(path.with_suffix(f".{codes[path.suffix[1:]]}"))
    pipeline.set(SOURCE_LANG=codes["en"], TARGET_LANG=codes["cs"])
    pipeline.run()
    commands = pipeline.recorded()
    assert [name_of(command) for command in commands] == ORDER
    assert all(value(command, "--target-lang") == "zh-Hant" for command in commands if "--target-lang" in command)
    assert (pipeline.work / "bin" / "train.eng_Latn-zh-Hant.zh-Hant.idx").is_file()


def test_the_codes_of_the_pipeline_are_those_of_the_package() -> None:
    assert f"code='^{CODE.pattern}$'" in (ROOT / "scripts" / "lib" / "config.sh").read_text()


def test_progress_of_translation_is_shown(first_run: FirstRun) -> None:
    assert "6 / 17 wps=331" in first_run[1]


def test_only_training_text_is_filtered(first_run: FirstRun) -> None:
    train, valid, test = first_run[2][:3]
    assert "--no-filter" not in train
    assert value(train, "--max-words") == "250"
    for kept in (valid, test):
        assert "--no-filter" in kept
        assert value(kept, "--max-words") == "250"


def test_one_dictionary_for_everything(first_run: FirstRun) -> None:
    for command in first_run[2]:
        if command[0] == "fairseq-preprocess":
            assert value(command, "--srcdict") == "WORK/vocabulary/spm.dict.txt"
            assert "--joined-dictionary" in command


def test_training_loads_the_plugin(first_run: FirstRun) -> None:
    for command in first_run[2]:
        if name_of(command) in ("fairseq-train", "time --"):
            assert value(command, "--user-dir") == "ROOT/fairseq_compress"
            assert value(command, "--task") == "compressed_translation"
            assert value(command, "--autocast-dtype") == "bfloat16"
            assert "--cpu" in command


def test_teacher_and_students_train_as_configured(first_run: FirstRun) -> None:
    teacher, one, two = (command for command in first_run[2] if command[0] == "fairseq-train")
    assert value(teacher, "--arch") == "transformer_small"
    assert value(teacher, "--max-epoch") == "3"
    assert value(teacher, "--keep-last-epochs") == "2"
    assert value(teacher, "--adam-betas") == "(0.9, 0.98)"
    assert [one[1], two[1]] == ["WORK/bin", "WORK/bin-both"]
    assert "--upsample-primary" not in one
    assert value(two, "--upsample-primary") == "1"
    assert "--teacher-path" not in one
    assert value(two, "--criterion") == "word_level_kd"
    assert value(two, "--teacher-path") == "WORK/teacher/averaged.pt"
    assert value(two, "--teacher-data") == "WORK/bin"
    assert value(two, "--encoder-layers") == "2"
    assert value(one, "--max-update") == value(two, "--max-update") == "30"


def test_joined_corpus_has_both_training_parts(first_run: FirstRun) -> None:
    folder = first_run[0].work / "bin-both"
    for lang in ("en", "cs"):
        gold = first_run[0].work / f"bin/train.en-cs.{lang}.idx"
        assert (folder / f"train.en-cs.{lang}.idx").read_bytes() == gold.read_bytes()
        assert (folder / f"train1.en-cs.{lang}.idx").exists()
        assert (folder / f"valid.en-cs.{lang}.idx").exists()


def test_scores_carry_the_facts_of_the_run(first_run: FirstRun) -> None:
    teacher, _, two = (command for command in first_run[2] if "score" in command)
    facts = two[two.index("--set") + 1 :]
    seconds = teacher.index("--translation-seconds")
    assert teacher[seconds + 1 : seconds + 6] == ["1.5", "1.625", "1.25", "--timed-sentences", "5"]
    assert {"role=student", "criterion=word_level_kd", "data=both", "seed=1"} <= set(facts)
    assert not [fact for fact in facts if fact.startswith(("arch=", "updates="))]  # the checkpoint tells
    assert "hardware=a fake" in facts
    assert value(two, "--hypothesis") == "WORK/translations/two.cs"
    assert value(two, "--output") == "WORK/translations/two.json"


def test_one_stage_for_one_system(finished: Pipeline) -> None:
    finished.set(STUDENT_MAX_UPDATE="60")
    output = finished.run("two", script="stages/07_train_students.sh").stdout
    assert output.startswith("run train-two (goes on: ")
    assert [name_of(command) for command in finished.recorded()] == ["fairseq-train"]


def test_from_and_to(finished: Pipeline) -> None:
    output = finished.run("--from", "train_students", "--to", "8").stdout
    assert [line for line in output.splitlines() if line.startswith("==")] == ["== 07_train_students", "== 08_average"]


def test_weights_and_biases_changes_no_result(finished: Pipeline) -> None:
    finished.set(TEACHER_MAX_EPOCH="2")
    finished.run("--to", "03")
    finished.run(script="stages/04_train_teacher.sh", WANDB_PROJECT="tries")
    train = finished.recorded()[0]
    assert value(train, "--wandb-project") == "tries"
    log = finished.work / "logs/train-teacher.log"
    assert "wandb: offline" in log.read_text()
    assert "run" not in finished.run(script="stages/04_train_teacher.sh").stdout
    log.unlink()
    finished.set(TEACHER_LR="1e-3")
    (finished.folder / "netrc").write_text("machine api.wandb.ai login user password key")
    finished.run(script="stages/04_train_teacher.sh", WANDB_PROJECT="tries", NETRC=str(finished.folder / "netrc"))
    assert "wandb: as logged in" in log.read_text()


@pytest.mark.parametrize("config", ["demo-en-cs", "demo-cs-en", "multi30k-en-cs", "multi30k-cs-en"])
def test_dry_run_prints_everything_and_makes_nothing(pipeline: Pipeline, config: str) -> None:
    source, target = config.split("-")[1:]
    commands = pipeline.dry_run(f"{config}.env")
    names = [name_of(command) for command in commands]
    assert names.count("fairseq-train") + names.count("export") == names.count("score") > 2
    for command in commands:
        if "--source-lang" in command:
            assert (value(command, "--source-lang"), value(command, "--target-lang")) == (source, target)
    assert names[-1] == "report"
    assert not pipeline.work.exists()
    assert not pipeline.record.exists()


def test_demo_says_that_it_is_synthetic(pipeline: Pipeline) -> None:
    commands = pipeline.dry_run("demo-en-cs.env")
    assert commands[0][:2] == ["python", "data/demo/generate.py"]
    assert "ynthetic" in value(commands[-1], "--note")
