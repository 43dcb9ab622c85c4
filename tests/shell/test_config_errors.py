"""A wrong configuration: every problem at once, one line each, before anything is made."""

from pathlib import Path

import pytest

from tests.helpers.fake_pipeline import ROOT, Pipeline, find, value

CRITERIONS = (
    "label_smoothed_cross_entropy fused_label_smoothed_cross_entropy word_level_kd hidden_state_kd sequence_level_kd"
    " dual_vocab_kd"
)


def errors(pipeline: Pipeline) -> list[str]:
    """What the run says, without the name in front; and nothing was made or called."""
    lines = pipeline.run(status=1).stderr.splitlines()
    assert not pipeline.work.exists()
    assert not pipeline.record.exists()
    assert all(line.startswith("try-en-cs: error: ") for line in lines)
    return [line.removeprefix("try-en-cs: error: ") for line in lines]


@pytest.mark.parametrize(
    ("variable", "wrong", "rule"),
    [
        ("KD_TEMPERATURE", "0", "must be a number over 0"),
        ("KD_ALPHA", "2", "must be a number from 0 to 1"),
        ("LABEL_SMOOTHING", "-0.1", "must be a number from 0 to 1"),
        ("VOCAB_SIZE", "6k", "must be a whole number over 0"),
        ("VOCAB_SIZE", "", "must be set"),
        ("SOURCE_LANG", "cs", "must differ from SOURCE_LANG"),
        ("SOURCE_LANG", "en.txt", "must be a language code: letters and digits, joined by '-', '_' or '@'"),
        ("TARGET_LANG", "../cs", "must be a language code"),
        ("TEACHER_LR", "fast", "must be a number over 0"),
        ("STUDENT_UPDATE_FREQ", "0", "must be a whole number over 0"),
        ("KD_BEAM", "1.5", "must be a whole number over 0"),
        ("KD_NBEST", "4", "must be at most KD_BEAM (3)"),
        ("KD_K_BEST", "4", "must be at most the 3 hypotheses that are kept of a source"),
        ("KD_INTERPOLATION", "ter", "must be one of: bleu chrf"),
        ("KD_DROP_WORST", "5%", "must be a number from 0 to 1"),
        ("KD_PRECISION", "float16", "must be one of: auto float32 bfloat16"),
        ("SEQUENCE_KD_TEMPERATURE", "0", "must be a number over 0"),
        ("CACHE_DTYPE", "int8", "must be one of: float16 float32"),
        ("CACHE_MAX_TOKENS", "0", "must be a whole number over 0"),
        ("JOBS", "all", "must be auto or a whole number over 0"),
        ("ADOPT", "yes", "must be one of: 0 1"),
        ("BASELINE", "three", "must have a row with the seed 1, as one has"),
        ("AUTOCAST", "int8", "must be one of: auto none bfloat16"),
        ("AUTOCAST", "float16", "must be one of: auto none bfloat16"),
        ("VOCAB_SIZE", "08", "must be a whole number over 0"),
        ("SEED", "01", "must be a whole number, 0 or more"),
        ("TEACHER_AVERAGE_LAST", "4", "must be at most TEACHER_MAX_EPOCH (3)"),
        ("STUDENT_AVERAGE_LAST", "4", "must be at most STUDENT_MAX_UPDATE / STUDENT_SAVE_INTERVAL, rounded up (3)"),
        ("TEACHER_ARCH", "lstm", "must be one of: transformer_small"),
        ("TEACHER_MAX_EPOCH", "0", "must be over 0, or training never ends"),
        ("DUAL_TEACHER", "old", "must be one of: trained new"),
        ("DUAL_P_MIX", "1.5", "must be a number from 0 to 1"),
        ("DUAL_ALONE_UPDATE", "-1", "must be a whole number, 0 or more"),
        ("FP16", "1", "needs a GPU, but DEVICE is cpu"),
    ],
)
def test_one_wrong_setting(pipeline: Pipeline, variable: str, wrong: str, rule: str) -> None:
    pipeline.set(**{variable: wrong})
    assert any(rule in line and f"got '{wrong}'" in line for line in errors(pipeline))


def test_all_problems_at_once(pipeline: Pipeline) -> None:
    pipeline.set(
        KD_TEMPERATURE="0", KD_ALPHA="2", STUDENTS='("a lstm silver hope" "a transformer_student_tiny gold nll")'
    )
    (pipeline.raw / "train.cs").unlink()
    (pipeline.raw / "test.en").write_text("")
    found = errors(pipeline)
    assert found[:2] == [
        "KD_TEMPERATURE must be a number over 0, got '0'",
        "KD_ALPHA must be a number from 0 to 1, got '2'",
    ]
    assert found[2].startswith("STUDENTS a architecture must be one of: transformer_small ")
    assert found[3:] == [
        "STUDENTS a data must be one of: gold kd both k-best interpolated gold@PIECES, got 'silver'",
        f"STUDENTS a criterion must be one of: {CRITERIONS}, got 'hope'",
        "STUDENTS name must occur once and not be teacher, got 'a'",
        f"STUDENTS a criterion must be one of: {CRITERIONS}, got 'nll'",
        f"raw text must exist and not be empty, got '{pipeline.raw}/train.cs'",
        f"raw text must exist and not be empty, got '{pipeline.raw}/test.en'",
    ]


OR_HIDDEN = "word_level_kd@K or hidden_state_kd@K"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("kd sequence_level_kd", "data must be k-best with the criterion sequence_level_kd, got 'kd'"),
        ("k-best word_level_kd", "criterion must be sequence_level_kd with the data k-best, got 'word_level_kd'"),
        ("k-best word_level_kd@8", "criterion must be sequence_level_kd with the data k-best, got 'word_level_kd@8'"),
        *(
            (f"gold {name}", f"criterion must be {OR_HIDDEN} with a whole number K over 0, got '{name}'")
            for name in ("word_level_kd@", "word_level_kd@0", "word_level_kd@8x", "label_smoothed_cross_entropy@8")
        ),
        ("gold word_level_kd@100", "criterion must be word_level_kd@K with K at most VOCAB_SIZE (99), got"),
    ],
)
def test_rows_whose_words_do_not_fit(pipeline: Pipeline, row: str, problem: str) -> None:
    pipeline.set(STUDENTS=f"('a transformer_student_tiny {row}')")
    (found,) = errors(pipeline)
    assert found.startswith(f"STUDENTS a {problem}")


def test_unknown_names(pipeline: Pipeline) -> None:
    pipeline.append("""
        STUDENT_DROPUT=0.9 KD_TEMPRATURE=2 WORKDIR=/x UNHEARD_OF=1 vocab_size=3
        STUDENT=(one)
        export TEACHER_LRS=1
    """)
    rule = "; names of your own are in lower case or begin with MY_"
    assert sorted(errors(pipeline)) == [
        f"KD_TEMPRATURE: unknown setting (did you mean KD_TEMPERATURE?){rule}",
        f"STUDENT: unknown setting (did you mean STUDENTS?){rule}",
        f"STUDENT_DROPUT: unknown setting (did you mean STUDENT_DROPOUT?){rule}",
        f"TEACHER_LRS: unknown setting (did you mean TEACHER_LR?){rule}",
        f"UNHEARD_OF: unknown setting{rule}",
        f"WORKDIR: unknown setting (did you mean WORK_DIR?){rule}",
        "vocab_size: unknown setting (did you mean VOCAB_SIZE?)",
    ]


def test_names_of_the_user(pipeline: Pipeline) -> None:
    pipeline.append("""
        helper=5 from=07 argument=a MY_HELPER=6
        export CUDA_VISIBLE_DEVICES=0
        [[ abc =~ b ]] && read -r <<<x
        KNOWN_ARCHITECTURES+=(mine)
        TEACHER_WARMUP=$helper$MY_HELPER$from$argument
    """)
    pipeline.set(TEACHER_WARMUP="$helper$MY_HELPER")
    commands = pipeline.dry_run()
    assert value(find(commands, "fairseq-train")[0], "--warmup-updates") == "56"
    assert find(commands, "prepare")


@pytest.mark.parametrize("config", sorted(ROOT.glob("configs/**/*.env")), ids=lambda path: path.stem)
def test_every_configuration_has_known_names(pipeline: Pipeline, config: Path) -> None:
    if config.name != "defaults.env":
        pipeline.config = config
        pipeline.run("--dry-run", "--to", "01", DEVICE="gpu", FC_AUTOCAST="none", LONG="1")


def test_words_of_a_row_have_suggestions(pipeline: Pipeline) -> None:
    pipeline.set(STUDENTS="('a transformer_student_tny gold word_levelkd')")
    architecture, criterion = errors(pipeline)
    assert architecture.endswith("got 'transformer_student_tny' (did you mean transformer_student_tiny?)")
    assert criterion.endswith("got 'word_levelkd' (did you mean word_level_kd?)")


def test_rows_of_exports(pipeline: Pipeline) -> None:
    pipeline.set(EXPORT="('a/b one' 'two one' 'x onne' 'x teacher')")
    known = "must be one of: teacher one two"
    assert errors(pipeline) == [
        "EXPORT name must have only letters, digits, dots, dashes and @, got 'a/b'",
        "EXPORT name must occur once and be no name in STUDENTS, nor teacher, got 'two'",
        f"EXPORT x system {known}, got 'onne' (did you mean one?)",
        "EXPORT name must occur once and be no name in STUDENTS, nor teacher, got 'x'",
    ]


def test_near_misses_in_the_environment_are_told(pipeline: Pipeline) -> None:
    error = pipeline.run("--dry-run", WORKDIR="/x", DEVICES="2", JOB="1").stderr
    assert error.splitlines() == [
        "run_all.sh: warning: DEVICES in the environment is no variable of the pipeline; did you mean DEVICE?",
        "run_all.sh: warning: WORKDIR in the environment is no variable of the pipeline; did you mean WORK_DIR?",
    ]


def test_dropping_needs_a_reverse_model(pipeline: Pipeline) -> None:
    pipeline.set(KD_DROP_WORST="0.05")
    rule = "must be a model of the other direction when KD_DROP_WORST is over 0"
    assert errors(pipeline) == [f"KD_REVERSE_CHECKPOINT {rule}, got ''"]


def test_different_line_counts_stop_the_run(pipeline: Pipeline) -> None:
    with (pipeline.raw / "test.cs").open("a") as stream:
        stream.write("one more\n")
    error = pipeline.run(status=1).stderr
    assert "line counts differ: " in error
    assert "has 5 lines" in error
    assert "has 6" in error


def test_lines_of_too_many_pieces(pipeline: Pipeline) -> None:
    pipeline.set(TRANSLATE_MAX_TOKENS="9")
    for part in ("train", "test"):
        for lang in ("en", "cs"):
            text = pipeline.raw / f"{part}.{lang}"
            text.write_text(text.read_text() + ("a " * 9 if lang == "cs" else "a") + "\n")
    result = pipeline.run("--to", "03", status=1)
    place = f"{pipeline.work}/encoded/test.cs, line 6 has 9 pieces, at most 8 are possible"
    assert result.stderr.startswith(f"03_binarize.sh: error: {place}")
    assert result.stderr.count("\n") == 1
    pipeline.set(TRANSLATE_MAX_TOKENS="10", TEACHER_MAX_TOKENS="10")
    assert "leaves out" not in pipeline.run("--to", "03").stdout
    with (pipeline.raw / "train.en").open("a") as source, (pipeline.raw / "train.cs").open("a") as target:
        source.write("a " * 10 + "\n")
        target.write("a\n")
    output = pipeline.run("--to", "03").stdout
    assert "training pairs of more than 9 pieces, which fairseq-train leaves out: 1\n" in output


def test_missing_config(pipeline: Pipeline) -> None:
    pipeline.config.unlink()
    assert pipeline.run(status=1).stderr == f"run_all.sh: error: CONFIG must be a file, got '{pipeline.config}'\n"


def test_unknown_stage_option_and_system(pipeline: Pipeline) -> None:
    assert "no such stage: 14" in pipeline.run("--from", "14", status=1).stderr
    assert "unknown option --fast" in pipeline.run("--fast", status=1).stderr
    error = pipeline.run("three", script="stages/07_train_students.sh", status=1).stderr
    assert "SYSTEM must be teacher or a name in STUDENTS or EXPORT, got 'three'" in error


def test_a_stage_before_its_inputs(pipeline: Pipeline) -> None:
    error = pipeline.run(script="stages/04_train_teacher.sh", status=1).stderr
    assert error.count("\n") == 1
    assert f"step train-teacher: missing input {pipeline.work}/bin" in error
