"""``fairseq-compress shortlist`` with every aligner, and ``export --shortlist``, with a small trained model."""

import json
import random
import shutil

import pytest
import torch
from fairseq.utils import extract_hard_alignment

from fairseq_compress import runtimes
from fairseq_compress.cli.main import main
from fairseq_compress.decoding.shortlist_file import read_shortlist
from fairseq_compress.errors import DataError
from fairseq_compress.jobs.aligners import Pair
from fairseq_compress.jobs.aligners.attention import AttentionAligner
from fairseq_compress.runtimes.model_directory import ModelDirectory
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.teachers.dictionaries import word_ids
from fairseq_compress.teachers.loading import load_models
from tests.conftest import ROOT, TINY, binarize, run_command

WORDS = 120


def write_text(path, lines, seed):
    """Word ``aI`` is translated by ``bI``; words of both sides have other letters."""
    draw = random.Random(seed)
    with open(f"{path}.en", "w") as source, open(f"{path}.cs", "w") as target, open(f"{path}.links", "w") as links:
        for _ in range(lines):
            words = [draw.randrange(WORDS) for _ in range(draw.randint(2, 7))]
            source.write(" ".join(f"a{word}" for word in words) + "\n")
            target.write(" ".join(f"b{word}" for word in words) + "\n")
            links.write(" ".join(f"{place}-{place}" for place in range(len(words))) + "\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    for seed, (name, lines) in enumerate({"train": 600, "test": 40}.items()):
        write_text(folder / name, lines, seed)
    prefixes = {"trainpref": folder / "train", "validpref": folder / "test"}
    binarize(folder / "bin", prefixes, "--joined-dictionary")
    run_command(
        "fairseq-train", folder / "bin", "--user-dir", ROOT / "fairseq_compress", "--task", "compressed_translation",
        "-s", "en", "-t", "cs", "--cpu", "--arch", "transformer_small", *TINY, "--share-all-embeddings", "--optimizer",
        "adam", "--lr", "3e-3", "--max-tokens", 1000, "--max-update", 60, "--seed", 3, "--disable-validation",
        "--no-epoch-checkpoints", "--save-dir", folder, "--num-workers", 0,
    )  # fmt: skip
    return folder


def arguments(folder, output, *more):
    return [
        "shortlist", str(folder / "checkpoint_last.pt"), str(output), "--data", str(folder / "bin"), "--source",
        str(folder / "train.en"), "--target", str(folder / "train.cs"), *map(str, more),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shortlist(model):
    output = model / "en-cs.shortlist"
    assert main(arguments(model, output, "--alignments", model / "train.links", "--first", 10, "--best", 3)) == 0
    return output


def test_each_word_has_its_translation(model, shortlist):
    file, models = read_shortlist(shortlist), load_models(str(model / "checkpoint_last.pt"), str(model / "bin"))
    header, (always, offsets, entries) = file.header, file.lists
    assert (header.first, header.best, header.always) == (10, 3, 10)
    for word in range(WORDS):
        source, target = models.source.index(f"a{word}"), models.target.index(f"b{word}")
        assert set(entries[offsets[source] : offsets[source + 1]].tolist()) == {target} - set(always.tolist())


def export(folder, output, *more):
    return main([
        "export", str(folder / "checkpoint_last.pt"), str(output), "--data", str(folder / "bin"), "--segmentation",
        "none", "--source", str(folder / "test.en"), "--reference", str(folder / "test.cs"), "--max-len-b", "12",
        "--max-bleu-loss", "50", *map(str, more),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def exported(model, shortlist):
    assert export(model, model / "short", "--shortlist", shortlist) == 0
    return model / "short"


def test_the_metadata_tell_what_it_changes(exported, shortlist):
    metadata = json.loads((exported / "metadata.json").read_text())
    assert metadata["format"] == "fairseq-compress model 5"
    assert metadata["shortlist"]["sha256"] == read_shortlist(shortlist).header.sha256
    effect = metadata["check"]["shortlist"]
    assert 128 <= effect["mean_entries"] < 248
    assert effect["coverage"]["reference"] == 1.0
    assert 0 < effect["coverage"]["output"] <= 1
    assert 0 <= effect["changed"] <= 40
    assert len(effect["worse_lines"]) <= effect["changed"]
    loss = -effect["bleu_difference"]
    assert any("the shortlist costs" in caution for caution in metadata["check"]["cautions"]) == (loss > 0.1)


def test_a_sentence_is_translated_with_its_entries_in_any_batch(exported, model):
    opened = runtimes.open(exported, RuntimeOptions({"beam": 2}))
    text = [line.split() for line in (model / "test.en").read_text().splitlines()]
    whole = opened.translator.translate(text)
    assert whole == [opened.translator.translate([sentence])[0] for sentence in text]
    models = load_models(str(model / "checkpoint_last.pt"), str(model / "bin"))
    for sentence, (best, *_) in zip(text, whole, strict=True):
        entries = opened.translator.shortlist.of(word_ids(" ".join(sentence), models.source))
        assert {models.target.index(word) for word in best.output} <= set(entries.tolist())


def test_links_of_the_attention_are_those_of_fairseq(model):
    models = load_models(str(model / "checkpoint_last.pt"), str(model / "bin"))
    lines = [(model / f"test.{side}").read_text().splitlines()[:20] for side in ("en", "cs")]
    pairs = [
        Pair(word_ids(one, models.source)[:-1], word_ids(two, models.target)[:-1])
        for one, two in zip(*lines, strict=True)
    ]
    found = {(*pair.source, -1, *pair.target): links for pair, links in AttentionAligner(models)(pairs)}
    (net,), eos = models.models, models.target.eos()
    for pair in pairs:
        source, target = (torch.tensor([*ids, eos])[None] for ids in pair)
        previous = torch.cat([target[:, -1:], target[:, :-1]], dim=1)
        encoded = net.encoder(source, src_lengths=torch.tensor([source.size(1)]))
        _, more = net.decoder(previous, encoder_out=encoded, alignment_layer=net.decoder.num_layers - 1)
        expected = extract_hard_alignment(more["attn"][0][0], source[0], target[0], models.target.pad(), eos)
        assert found[(*pair.source, -1, *pair.target)].tolist() == [list(link) for link in expected]


def test_aligned_by_attention(model, tmp_path, capsys):
    with open(tmp_path / "train.en", "w") as source, open(tmp_path / "train.cs", "w") as target:
        source.write((model / "test.en").read_text() + "\n" + "a1 " * 2000 + "\n")
        target.write((model / "test.cs").read_text() + "b1\nb1\n")
    given = ("--source", tmp_path / "train.en", "--target", tmp_path / "train.cs", "--aligner", "attention")
    assert main(arguments(model, tmp_path / "s", *given)) == 0
    assert read_shortlist(tmp_path / "s").header.links == len((model / "test.cs").read_text().split())
    assert "2 sentence pairs are empty or too long for the model: not counted" in capsys.readouterr().err


def test_aligned_by_eflomal(model, tmp_path):
    pytest.importorskip("eflomal")
    assert main(arguments(model, tmp_path / "s", "--aligner", "eflomal", "--first", 0, "--best", 1)) == 0
    file, models = read_shortlist(tmp_path / "s"), load_models(str(model / "checkpoint_last.pt"), str(model / "bin"))
    _, offsets, entries = file.lists
    right = sum(
        entries[offsets[models.source.index(f"a{word}")]] == models.target.index(f"b{word}") for word in range(WORDS)
    )
    assert right > 0.9 * WORDS


def test_what_is_refused(model, shortlist, tmp_path, capsys):
    def message(status, found):
        assert found == status
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        return line

    links = model / "train.links"
    both = message(1, main(arguments(model, tmp_path / "s", "--alignments", links, "--aligner", "attention")))
    assert "--alignments: must be given, or --aligner eflomal or attention, and not both" in both
    assert "and not both" in message(1, main(arguments(model, tmp_path / "s")))
    (tmp_path / "none").write_text("\n" * 600)
    empty = message(1, main(arguments(model, tmp_path / "s", "--alignments", tmp_path / "none")))
    assert "must have links between their subwords, have none" in empty
    (tmp_path / "short").write_text("0-0\n")
    assert "line counts differ" in message(
        1, main(arguments(model, tmp_path / "s", "--alignments", tmp_path / "short"))
    )
    (tmp_path / "far").write_text("0-0\n" * 599 + "0-40\n")
    far = message(1, main(arguments(model, tmp_path / "s", "--alignments", tmp_path / "far")))
    assert "line 600: links must be in" in far
    layer = ("--aligner", "attention", "--alignment-layer", 9)
    assert "--alignment-layer: must be in [0, " in message(1, main(arguments(model, tmp_path / "s", *layer)))
    assert not (tmp_path / "s").exists()
    refused = message(1, export(model, tmp_path / "m", "--runtime", "ctranslate2", "--shortlist", shortlist))
    assert "--shortlist: requires --runtime onnx or bergamot" in refused
    assert "CTranslate2 takes one for a whole batch" in refused
    (tmp_path / "broken").write_bytes(shortlist.read_bytes()[:-4])
    assert "bytes behind its first line" in message(
        1, export(model, tmp_path / "m", "--shortlist", tmp_path / "broken")
    )
    header, _, body = shortlist.read_bytes().partition(b"\n")
    other = json.loads(header) | {"target_dictionary": "0" * 64}
    (tmp_path / "other").write_bytes(json.dumps(other).encode() + b"\n" + body)
    wrong = message(1, export(model, tmp_path / "m", "--shortlist", tmp_path / "other"))
    assert "must be of the model's target dictionary (248 entries" in wrong
    assert not (tmp_path / "m").exists()


def test_a_directory_with_the_shortlist_of_another(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "m")
    path = tmp_path / "m" / "shortlist.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"shortlist.bin: must have \d+ bytes, has"):
        ModelDirectory.open(tmp_path / "m")
