"""``fairseq-compress extract-student``: the student alone, as an ordinary checkpoint, with its dictionaries."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils, models
from fairseq.data import Dictionary
from fairseq.dataclass.configs import FairseqConfig
from fairseq.tasks.translation import TranslationConfig
from omegaconf import OmegaConf

import fairseq_compress
from fairseq_compress.checkpoint.extract_student import extract_student, write_student
from fairseq_compress.checkpoint.load import load_upgraded
from fairseq_compress.cli.main import main
from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.models.dual_vocabulary import DualVocabularyModel
from fairseq_compress.modules.projected_embedding import ProjectedTable
from fairseq_compress.surgery.extract_student import student_weights

SMALL = {
    "encoder_layers": 1, "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 6, "encoder_attention_heads": 2,
    "decoder_layers": 1, "decoder_embed_dim": 8, "decoder_ffn_embed_dim": 6, "decoder_attention_heads": 2,
}  # fmt: skip
TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight")


def dictionary(size):
    made = Dictionary()
    for number in range(size - len(made)):
        made.add_symbol(f"w{number}", n=1)
    return made


OWN, UNION = dictionary(20), dictionary(33)


def make(entries, seed=1, **values):
    fairseq_compress.register()
    torch.manual_seed(seed)
    task = SimpleNamespace(source_dictionary=entries, target_dictionary=entries)
    cfg = argparse.Namespace(arch=values.pop("arch", "transformer_small"), **SMALL | values)
    return models.build_model(cfg, task), cfg


def checkpoint(folder, weights, cfg, **task):
    """What a trainer of fairseq writes for ``weights`` of a composite model."""
    cfg._name, cfg.dual_teacher = cfg.arch, '{"arch": "transformer_small"}'
    languages = {"source_lang": "en", "target_lang": "cs", "data": f"{folder / 'encoded'}:more"} | task
    groups = vars(FairseqConfig()) | {"task": TranslationConfig(**languages)}
    container = OmegaConf.to_container(OmegaConf.create(groups), resolve=True, enum_to_str=True)
    container["task"] |= {"_name": "dual_vocab_translation", "p_mix": 0.5}
    container |= {
        "model": cfg,
        "criterion": {"_name": "dual_vocab_kd", "epsilon": 0.1},
        "optimizer": argparse.Namespace(_name="sgd", momentum=0.5),
    }
    container["common"]["user_dir"] = "fairseq_compress"
    history = [{"criterion_name": "C", "optimizer_name": "O", "lr_scheduler_state": {"best": 1.0}, "num_updates": 7}]
    state = {
        "args": None, "cfg": container, "model": weights, "criterion": {"projections.u.a": torch.zeros(2)},
        "optimizer_history": history, "task_state": {"x": 1}, "last_optimizer_state": {"state": torch.zeros(3)},
        "extra_state": {"train_iterator": {"epoch": 3}, "metrics": {}},
    }  # fmt: skip
    torch.save(state, folder / "both.pt")
    (folder / "encoded").mkdir(exist_ok=True)
    OWN.save(str(folder / "encoded" / "dict.student.txt"))
    return folder / "both.pt"


def composite(student, teacher):
    return {f"{name}.{key}": value for name, model in (("student", student), ("teacher", teacher))
            for key, value in model.state_dict().items()}  # fmt: skip


def logits(model):
    tokens, lengths = torch.tensor([[7, 5, 9, 2], [4, 19, 2, 1]]), torch.tensor([4, 3])
    return model.eval()(tokens, lengths, tokens)[0]


def call(*arguments):
    return main(["extract-student", *map(str, arguments)])


@pytest.mark.parametrize(
    "options",
    [
        {"arch": "transformer", "share_all_embeddings": True},
        {"arch": "transformer_small", "encoder_layers": 2, "encoder_layer_groups": 1},
        {"share_all_embeddings": False, "share_decoder_input_output_embed": False, "embedding_rank": 4},
    ],
)
def test_stock_fairseq_computes_what_the_student_inside_does(tmp_path, capsys, options):
    student, cfg = make(OWN, **options)
    teacher, _ = make(UNION, seed=2, encoder_embed_dim=12, decoder_embed_dim=12)
    path = checkpoint(tmp_path, composite(student, teacher), cfg)
    output = tmp_path / "out" / "student.pt"
    assert call("--checkpoint", path, "--output", output) == 0
    assert f"{output}: {cfg.arch}, 20 subwords, " in capsys.readouterr().err
    assert sorted(file.name for file in output.parent.iterdir()) == ["dict.cs.txt", "dict.en.txt", "student.pt"]
    (loaded,), _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(output)], arg_overrides={"data": str(output.parent)}
    )
    assert type(loaded) is type(student)
    assert torch.equal(logits(loaded), logits(student))
    assert task.source_dictionary == task.target_dictionary == OWN


def test_nothing_of_the_training_is_left(tmp_path):
    student, cfg = make(OWN)
    path = checkpoint(tmp_path, composite(student, make(UNION, seed=2)[0]), cfg)
    write_student(path, tmp_path / "student.pt")
    state = torch.load(tmp_path / "student.pt", weights_only=True)  # with no class allowed but tensors and plain values
    assert state["model"].keys() == student.state_dict().keys()
    assert len({state["model"][key].untyped_storage().data_ptr() for key in TABLES}) == 1
    task = state["cfg"]["task"]
    assert (task["_name"], task["source_lang"], task["target_lang"]) == ("translation", "en", "cs")
    assert task["data"] == f"{tmp_path / 'encoded'}:more"
    assert "p_mix" not in task
    assert "dual_teacher" not in state["cfg"]["model"]
    assert state["cfg"]["criterion"]["_name"] == "cross_entropy"
    assert state["cfg"]["model"]["_name"] == "transformer_small"
    assert state["cfg"]["optimizer"] == {"_name": "sgd", "momentum": 0.5}
    assert state["optimizer_history"][-1]["num_updates"] == 7
    assert (state["last_optimizer_state"], state["criterion"], state["task_state"]) == (None, None, {})
    again, _ = load_upgraded(tmp_path / "student.pt")
    assert again["model"].keys() == state["model"].keys()


@pytest.mark.parametrize("tied", ["all", "output", "none"])
def test_projected_embeddings_become_an_ordinary_table(tmp_path, tied):
    shared = {"share_all_embeddings": tied == "all", "share_decoder_input_output_embed": tied != "none"}
    teacher, _ = make(UNION, seed=2, encoder_embed_dim=12, decoder_embed_dim=12, **shared)
    student, cfg = make(OWN, **shared)
    matrix, rows = torch.randn(8, 12), torch.randperm(33)[:20]
    outer = composite(student, teacher) | {"student_projection.weight": matrix, "student_projection.rows": rows}
    for key in TABLES[: 2 if tied == "none" else 3]:
        del outer[f"student.{key}"]
    write_student(checkpoint(tmp_path, outer, cfg), tmp_path / "student.pt")
    written = torch.load(tmp_path / "student.pt", weights_only=True)["model"]
    (extracted,), _, _ = checkpoint_utils.load_model_ensemble_and_task(
        [str(tmp_path / "student.pt")], arg_overrides={"data": str(tmp_path)}
    )
    if tied != "none":
        table = ProjectedTable(rows, 8, 12)
        table.weight.data = matrix
        both = DualVocabularyModel(student, teacher, table)
        torch.testing.assert_close(logits(both.student), logits(extracted), rtol=0, atol=1e-5)
    for part, key in zip(("encoder", "decoder"), TABLES, strict=False):
        table = getattr(teacher, part).embed_tokens.weight.detach()
        for row, source in enumerate(rows.tolist()):
            assert torch.allclose(written[key][row], matrix @ table[source], atol=1e-6)
    places = [written[key].untyped_storage().data_ptr() for key in TABLES]
    assert len(set(places)) == {"all": 1, "output": 2, "none": 3}[tied]
    if tied == "none":
        assert torch.equal(written[TABLES[2]], student.decoder.output_projection.weight)


OF_TEACHER = {f"teacher.{key}": torch.arange(20.0).view(5, 4) + row for row, key in enumerate(TABLES[:2])}
PROJECTION = {"student_projection.weight": torch.zeros(2, 4), "student_projection.rows": torch.tensor([0, 4])}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"other": torch.zeros(1)}, "must have keys under student., teacher. and student_projection., got other"),
        (OF_TEACHER | {"student_projection.rows": torch.tensor([0])}, "got no student_projection.weight"),
        (PROJECTION, "got no teacher.encoder.embed_tokens.weight, teacher.decoder"),
        (OF_TEACHER | PROJECTION | {"student_projection.rows": torch.tensor([0, 5])}, r"\(2,\) with 0 to 5"),
        (OF_TEACHER | PROJECTION | {"student_projection.weight": torch.ones(4)}, r"must be \(D, 4\), got \(4,\)"),
        (OF_TEACHER | PROJECTION, "must have equal tables in the teacher where the student ties its own"),
    ],
)
def test_damaged_models_are_refused(others, message):
    with pytest.raises(CheckpointError, match=message):
        student_weights({"student.encoder.x": torch.zeros(1)} | others, SimpleNamespace(share_all_embeddings=True))


def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path):
    student, cfg = make(OWN)
    both = composite(student, make(UNION, seed=2)[0])
    output = tmp_path / "out" / "student.pt"
    path = checkpoint(tmp_path, both, cfg)
    other = tmp_path / "other.txt"
    UNION.save(str(other))
    with pytest.raises(ConfigError, match=r"other.txt must have as many entries .* 20 and 20, got 33"):
        write_student(path, output, other)
    other.write_text("no count\n")
    with pytest.raises(DataError, match=r"other\.txt, line 1: must be a symbol, a space and its count, got 'no count'"):
        write_student(path, output, other)
    with pytest.raises(DataError, match=r"must name the student's dict.student.txt, got .*nowhere.txt"):
        write_student(path, output, tmp_path / "nowhere.txt")
    with pytest.raises(ConfigError, match="is also an input"):
        write_student(path, path)
    with pytest.raises(DataError, match=r"cannot read .*meta.json: .* encode-dual writes it"):  # nobody tells languages
        extract_student(checkpoint(tmp_path, both, cfg, target_lang=None))
    cfg.decoder_ffn_embed_dim, cfg.architecture = 9, None
    with pytest.raises(CheckpointError, match="its weights do not fit its architecture"):
        write_student(checkpoint(tmp_path, both, cfg), output)
    with pytest.raises(CheckpointError, match=r"both.pt: model: must have weights under student\., got none"):
        extract_student(checkpoint(tmp_path, student.state_dict(), cfg))
    assert not output.parent.exists()


def test_the_dictionary_of_another_model_is_not_overwritten(tmp_path):
    student, cfg = make(OWN)
    path = checkpoint(tmp_path, composite(student, make(UNION, seed=2)[0]), cfg)
    UNION.save(str(tmp_path / "dict.cs.txt"))
    with pytest.raises(ConfigError, match=r"a folder without a dictionary of another model, got .*dict.cs.txt"):
        write_student(path, tmp_path / "student.pt")
    assert not (tmp_path / "student.pt").exists()
    OWN.save(str(tmp_path / "dict.cs.txt"))
    write_student(path, tmp_path / "student.pt")
    assert (tmp_path / "dict.en.txt").read_bytes() == (tmp_path / "dict.cs.txt").read_bytes()
