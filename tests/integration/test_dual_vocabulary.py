"""Dual-vocabulary training by the real commands: from text to a student that stock fairseq translates with."""

import argparse
import re
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils, models
from fairseq.data import Dictionary

import fairseq_compress
from fairseq_compress.checkpoint.load import load_state
from fairseq_compress.corpus.segmentation.sentencepiece_model import piece_segmenter
from fairseq_compress.surgery.extend_vocabulary import extend_vocabulary
from fairseq_compress.weights.groups import chain_of
from fairseq_compress.weights.methods.linear import LinearQuantizer
from tests.conftest import PLUGIN, ROOT, run_command, train_in_two_processes
from tests.helpers.dual_corpus import LANGUAGES, make_folder

OWN = ["--student-embeddings", "own"]  # a table that is a parameter of the student
SMALL = [
    *("--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 16, "--encoder-ffn-embed-dim", 24),
    *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2),
]
TEACHER = [
    *("--dual-teacher-arch", "transformer_small", "--dual-teacher-options"),
    '{"encoder_layers": 2, "decoder_layers": 2, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 32}',
]
OBJECTIVES = {
    "cross-entropy": [],
    "down": ["--projection-loss", "down"],
    "up": ["--projection-loss", "up", "--layer-map", "encoder:0 decoder:1"],
    "words": ["--word-kd-weight", 1, "--projection-loss", "both"],
}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("dual"))


@pytest.fixture(scope="module")
def arguments(encoded):
    return [
        encoded, "--user-dir", PLUGIN, "--task", "dual_vocab_translation", "--criterion", "dual_vocab_kd", "--cpu",
        "--arch", "transformer_student_tiny", *SMALL, "--optimizer", "adam", "--lr", "1e-3", "--max-tokens", 300,
        "--seed", 3, "--no-progress-bar", "--log-interval", 1, "--num-workers", 0, "--save-interval-updates", 2,
        "--no-epoch-checkpoints", "--dropout", 0.1,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_it_trains_resumes_bit_equal_and_gives_its_student(kind, arguments, encoded, tmp_path):
    options = [*arguments, *TEACHER, *OWN, *OBJECTIVES[kind]]
    for name, stops in (("whole", [4]), ("resumed", [2, 4])):
        for updates in stops:
            log = run_command("fairseq-train", *options, "--max-update", updates, "--save-dir", tmp_path / name).stdout
    whole, resumed = (load_state(tmp_path / name / "checkpoint_last.pt") for name in ("whole", "resumed"))
    for part in ("model", "criterion"):
        assert (whole[part] or {}).keys() == (resumed[part] or {}).keys()
        for key, value in (whole[part] or {}).items():
            assert torch.equal(value, resumed[part][key]), key
    assert bool(whole["criterion"]) == ("--projection-loss" in options)
    for term in ("teacher_nll_loss", *(["down_loss"] if kind in ("down", "words") else [])):
        assert float(re.findall(rf"[ |]{term}[= ]([\d.]+)", log)[-1]) > 0
    student = tmp_path / "student" / "student.pt"
    student.parent.mkdir()
    run_command("fairseq-compress", "extract-student", "--checkpoint", tmp_path / "whole" / "checkpoint_last.pt",
                "--output", student)  # fmt: skip
    state = load_state(student)
    for key, value in state["model"].items():
        assert torch.equal(value, whole["model"][f"student.{key}"]), key
    assert (state["cfg"]["task"]["_name"], state["criterion"]) == ("translation", None)
    assert (student.parent / "dict.en.txt").read_bytes() == (encoded / "dict.student.txt").read_bytes()


def test_a_student_that_is_a_projection_of_the_teachers_pieces(arguments, tmp_path):
    options = [*arguments, *TEACHER, "--max-update", 2, "--save-dir", tmp_path]
    run_command("fairseq-train", *options)
    weights = load_state(tmp_path / "checkpoint_last.pt")["model"]
    assert "student.encoder.embed_tokens.weight" not in weights
    run_command("fairseq-compress", "extract-student", "--checkpoint", tmp_path / "checkpoint_last.pt",
                "--output", tmp_path / "s.pt")  # fmt: skip
    table = load_state(tmp_path / "s.pt")["model"]["encoder.embed_tokens.weight"]
    rows = weights["teacher.encoder.embed_tokens.weight"][weights["student_projection.rows"]]
    assert torch.equal(table, torch.nn.functional.linear(rows, weights["student_projection.weight"]))


def test_it_goes_on_alone(arguments, encoded, tmp_path):
    """Stage two: the student in the stock task and with stock losses, from where it was; and it translates."""
    both = [*arguments, *TEACHER, "--max-update", 2, "--save-dir", tmp_path / "both"]
    run_command("fairseq-train", *both)
    student = tmp_path / "student.pt"
    run_command("fairseq-compress", "extract-student", "--checkpoint", tmp_path / "both" / "checkpoint_last.pt",
                "--output", student)  # fmt: skip
    model = encoded.parent / "student.model"
    for name in (f"{part}.{language}" for part in ("train", "valid") for language in LANGUAGES):
        run_command("fairseq-compress", "encode", "--sentencepiece-model", model, "--input", encoded.parent / name,
                    "--output", tmp_path / name)  # fmt: skip
    run_command("fairseq-preprocess", "-s", "en", "-t", "cs", "--trainpref", tmp_path / "train", "--validpref",
                tmp_path / "valid", "--srcdict", tmp_path / "dict.en.txt", "--joined-dictionary", "--destdir",
                tmp_path / "bin")  # fmt: skip
    log = run_command(
        "fairseq-train", tmp_path / "bin", "--user-dir", PLUGIN, "--arch", "transformer_student_tiny", *SMALL, "--cpu",
        "--optimizer", "adam", "--lr", 0, "--max-tokens", 300, "--max-update", 1, "--num-workers", 0, "--seed", 3,
        "--finetune-from-model", student, "--save-dir", tmp_path / "alone", "--no-progress-bar",
    ).stdout  # fmt: skip
    assert "num. shared model params" in log
    alone, before = (load_state(path)["model"] for path in (tmp_path / "alone" / "checkpoint_last.pt", student))
    for key, value in before.items():
        assert torch.equal(alone[key], value), key
    translated = run_command("fairseq-generate", tmp_path / "bin", "--user-dir", PLUGIN, "--path", student,
                             "--gen-subset", "valid", "--beam", 2, "--max-len-b", 5).stdout  # fmt: skip
    assert sum(line.startswith("D-") for line in translated.splitlines()) == 40


def test_a_trained_teacher_gets_the_students_pieces(arguments, encoded, tmp_path):
    dictionary, union = (Dictionary.load(str(encoded / f"dict.{name}.txt")) for name in ("teacher", "union"))
    torch.manual_seed(5)
    cfg = argparse.Namespace(arch="transformer_small", encoder_layers=1, decoder_layers=1, encoder_embed_dim=16)
    fairseq_compress.register()
    trained = models.build_model(cfg, SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary))
    cfg._name, cfg.source_lang, cfg.target_lang = cfg.arch, "en", "cs"
    task = {"_name": "translation", "source_lang": "en", "target_lang": "cs", "data": str(encoded)}
    history = [{"criterion_name": "C", "optimizer_name": "O", "lr_scheduler_state": {}, "num_updates": 7}]
    for language in LANGUAGES:
        dictionary.save(str(tmp_path / f"dict.{language}.txt"))
    torch.save({
        "cfg": {"model": cfg, "task": task}, "args": None, "model": trained.state_dict(), "optimizer_history": history,
        "extra_state": {"train_iterator": {"epoch": 1}, "metrics": {}},
    }, tmp_path / "teacher.pt")  # fmt: skip
    options = ["--dual-teacher-path", tmp_path / "teacher.pt", "--dual-teacher-model", encoded.parent / "teacher.model"]
    start = ["fairseq-train", *arguments, "--lr", 0, "--max-update", 1, "--save-dir", tmp_path / "both"]
    run_command(*start, *options)
    told = run_command(*start, *options[:3], encoded.parent / "student.model", check=False).stdout
    assert "--dual-teacher-model: must be the teacher's model that" in told
    union.save(str(tmp_path / "dict.cs.txt"))
    told = run_command(*start, *options, check=False).stdout
    assert "the teacher's cs dictionary must equal the student's; the first difference is entry" in told
    weights = load_state(tmp_path / "both" / "checkpoint_last.pt")["model"]
    segment = piece_segmenter(encoded.parent / "teacher.model")
    assert len(union) > len(dictionary)
    for key, value in extend_vocabulary(trained.state_dict(), union, dictionary, segment).items():
        assert torch.equal(weights[f"teacher.{key}"], value), key


def test_two_processes_are_one_that_accumulates(arguments, tmp_path):
    still = ["--dropout", 0, "--dual-teacher-options", TEACHER[-1].replace("}", ', "dropout": 0}')]
    whole = [*arguments, *TEACHER, *OBJECTIVES["words"], *still, "--optimizer", "sgd", "--max-update", 3]
    train_in_two_processes(*whole, "--ddp-backend", "legacy_ddp", "--save-dir", tmp_path / "two")
    run_command("fairseq-train", *whole, "--update-freq", 2, "--save-dir", tmp_path / "one")
    two, one = (load_state(tmp_path / name / "checkpoint_last.pt") for name in ("two", "one"))
    for part in ("model", "criterion"):
        assert two[part]
        for key, value in two[part].items():
            torch.testing.assert_close(value, one[part][key], rtol=1e-5, atol=1e-7, msg=key)


def test_a_plan_for_both_is_resumed(arguments, tmp_path):
    """Ranges of inputs are looked for in the model that they are of."""
    options = [*arguments, *TEACHER, *OWN, "--compression-plan", ROOT / "configs" / "plans" / "int8-activations.yaml"]
    for updates in (1, 2):
        run_command("fairseq-train", *options, "--max-update", updates, "--save-dir", tmp_path)
    student = tmp_path / "student" / "student.pt"
    run_command(
        "fairseq-compress", "extract-student", "--checkpoint", tmp_path / "checkpoint_last.pt", "--output", student
    )
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(student)], {"data": str(student.parent)})
    assert isinstance(chain_of(model.encoder.layers[0].fc1).compression, LinearQuantizer)


def test_all_problems_come_in_one_message(arguments, tmp_path):
    wrong = ["--p-mix", 1.5, "--dual-teacher-options", "{}", "--save-dir", tmp_path, "--valid-subset", "valid,train",
             "--truncate-source"]  # fmt: skip
    log = run_command("fairseq-train", *arguments, *wrong, check=False).stdout
    for rule in (
        "--p-mix: must be in [0, 1], got 1.5; --dual-teacher-options: requires --dual-teacher-arch, got {} alone",
        "--dual-teacher-arch, --dual-teacher-path: must be one of the two, got neither",
        "--truncate-source: must not be given with dual vocabularies",
        "--valid-subset: must not have train, whose words are mixed for training",
    ):
        assert rule in log
    log = run_command("fairseq-train", *arguments, *TEACHER[:3], '{"enc": 3}', check=False).stdout
    assert "--dual-teacher-options: must be options of transformer_small, got enc" in log
