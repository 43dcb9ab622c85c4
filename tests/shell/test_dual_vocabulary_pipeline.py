"""Students with vocabularies of their own: which commands the pipeline runs for them, and what it refuses."""

import pytest

from tests.helpers.fake_pipeline import Pipeline, find, name_of, value

ROWS = """
own="--encoder-layers 2 --projection-loss up --p-mix 0.3 --dropout 0.2"
BASELINE=alone
STUDENTS=(
    "plain transformer_student_tiny gold label_smoothed_cross_entropy"
    "alone@s transformer_student_tiny gold@40 fused_label_smoothed_cross_entropy"
    "dual@s transformer_student_tiny gold@40 dual_vocab_kd $own"
    "alone transformer_student_tiny gold label_smoothed_cross_entropy"
)
"""


def test_a_vocabulary_for_each_size_and_the_student_alone_translates(pipeline: Pipeline) -> None:
    pipeline.append(ROWS)
    pipeline.run()
    commands = pipeline.recorded()
    sizes = {
        value(command, "--output"): value(command, "--vocab-size") for command in find(commands, "train-vocabulary")
    }
    assert sizes == {"WORK/vocabulary/spm": "99", "WORK/vocabulary-40/spm": "40"}
    folders = {
        value(command, "--destdir"): value(command, "--srcdict") for command in find(commands, "fairseq-preprocess")
    }
    assert folders == {"WORK/bin": "WORK/vocabulary/spm.dict.txt", "WORK/bin-40": "WORK/vocabulary-40/spm.dict.txt"}
    assert len(find(commands, "encode", "--sentencepiece-model", "WORK/vocabulary-40/spm.model")) == 6
    (encoding,) = find(commands, "encode-dual")
    for name, folder in (("teacher", "vocabulary"), ("student", "vocabulary-40")):
        assert value(encoding, f"--{name}-sentencepiece-model") == f"WORK/{folder}/spm.model"
        assert value(encoding, f"--{name}-dictionary") == f"WORK/{folder}/spm.dict.txt"
    assert value(encoding, "--trainpref") == "WORK/prepared/train/text"
    (extracting,) = find(commands, "extract-student")
    assert value(extracting, "--checkpoint") == "WORK/students/dual@s/averaged.pt"
    translated = {value(command, "--path"): value(command, "--") for command in find(commands, "time --")}
    assert translated == {
        "WORK/teacher/averaged.pt": "WORK/bin",
        "WORK/students/plain/averaged.pt": "WORK/bin",
        "WORK/students/alone@s/averaged.pt": "WORK/bin-40",
        "WORK/students/dual@s/student/student.pt": "WORK/bin-40",
        "WORK/students/alone/averaged.pt": "WORK/bin",
    }
    models = [value(command, "--sentencepiece-model") for command in find(commands, "decode")]
    assert [model == "WORK/vocabulary-40/spm.model" for model in models] == [False, False, True, True, False]
    scores = {value(command, "--name"): command for command in find(commands, "score")}
    assert value(scores["dual@s"], "--baseline") == "WORK/translations/alone@s.cs"
    assert value(scores["dual@s"], "--checkpoint") == "WORK/students/dual@s/student/student.pt"
    assert value(scores["plain"], "--baseline") == "WORK/translations/alone.cs"
    assert "--baseline" not in scores["alone@s"]
    pipeline.run()
    assert pipeline.recorded() == []  # all is done


@pytest.mark.parametrize("teacher", ["trained", "new"])
def test_the_training_of_both(pipeline: Pipeline, teacher: str) -> None:
    pipeline.append(ROWS)
    pipeline.set(DUAL_TEACHER=teacher)
    training = next(
        command
        for command in find(pipeline.dry_run(), "fairseq-train")
        if value(command, "--criterion") == "dual_vocab_kd"
    )
    assert training[1].endswith("/dual-40")
    assert (value(training, "--task"), value(training, "--p-mix")) == ("dual_vocab_translation", "0.3")
    if teacher == "trained":
        assert value(training, "--dual-teacher-path").endswith("/teacher/averaged.pt")
        assert value(training, "--dual-teacher-model").endswith("/vocabulary/spm.model")
    else:
        assert value(training, "--dual-teacher-arch") == "transformer_small"
        assert "--dual-teacher-path" not in training


def test_the_student_goes_on_alone(pipeline: Pipeline) -> None:
    pipeline.append(ROWS)
    pipeline.set(DUAL_ALONE_UPDATE="20")
    commands = [command for command in pipeline.dry_run() if "/dual@s/" in " ".join(command)]
    both, alone = find(commands, "fairseq-train")
    assert (value(both, "--max-update"), value(alone, "--max-update")) == ("30", "20")
    assert alone[1].endswith("/bin-40")
    assert value(alone, "--task") == "compressed_translation"
    assert value(alone, "--criterion") == "fused_label_smoothed_cross_entropy"
    assert value(alone, "--finetune-from-model").endswith("/students/dual@s/student/student.pt")
    assert (value(alone, "--encoder-layers"), value(alone, "--dropout")) == ("2", "0.2")
    assert not {"--projection-loss", "--p-mix", "up", "0.3", "--dual-teacher-path"} & set(alone)
    names = [name_of(command) for command in commands]
    assert names[:5] == ["fairseq-train", "average", "extract-student", "fairseq-train", "average"]
    assert value(find(commands, "time --")[0], "--path").endswith("/students/dual@s/alone.pt")


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("gold dual_vocab_kd", "STUDENTS x data must be gold@PIECES with the criterion dual_vocab_kd, got 'gold'"),
        (
            "gold@0 dual_vocab_kd",
            "STUDENTS x data must be one of: gold kd both k-best interpolated gold@PIECES, got 'gold@0'",
        ),
        (
            "kd@40 dual_vocab_kd",
            "STUDENTS x data must be one of: gold kd both k-best interpolated gold@PIECES, got 'kd@40'",
        ),
        (
            "gold@99 dual_vocab_kd",
            "STUDENTS x data must be gold where the pieces are as many as VOCAB_SIZE, got 'gold@99'",
        ),
        (
            "gold@40 word_level_kd",
            "STUDENTS x criterion with data of another vocabulary must be one of: label_smoothed_cross_entropy "
            "fused_label_smoothed_cross_entropy dual_vocab_kd, got 'word_level_kd'",
        ),
    ],
)
def test_what_does_not_go_together(pipeline: Pipeline, row: str, rule: str) -> None:
    pipeline.append(f'STUDENTS=("x transformer_student_tiny {row}")\n')
    assert f"try-en-cs: error: {rule}\n" in pipeline.run(status=1).stderr
