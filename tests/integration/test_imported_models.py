"""Imported MarianMT, M2M100 and NLLB against transformers: models with random weights, made here."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.sequence_generator import SequenceGenerator

from fairseq_compress import register, runtimes
from fairseq_compress.checkpoint.imports.huggingface_vocabulary import marian_vocabulary, multilingual_vocabulary
from fairseq_compress.checkpoint.load import load_model
from fairseq_compress.cli.main import main
from fairseq_compress.corpus.segmentation.choice import Segmentation
from fairseq_compress.models.student_output import student_output
from fairseq_compress.runtimes.options import RuntimeOptions
from fairseq_compress.teachers.loading import load_models
from tests.helpers.huggingface_models import LINES, write_m2m100, write_marian, write_nllb

LONGEST = 30
SEARCH = {"beam": 4, "min_len": 0, "max_len_b": LONGEST}
PAIRS = {
    "marian": ("en", "cs", ""), "marian_multilingual": ("en", "cs", ">>{}<<"), "marian_two_tables": ("en", "cs", ""),
    "marian_unscaled": ("en", "cs", ""), "m2m100": ("en", "cs", "__{}__"), "nllb": ("eng_Latn", "ces_Latn", "{}"),
}  # fmt: skip


def written(family: str, folder: Path) -> Any:
    """A folder of transformers, and its model."""
    if family == "m2m100":
        return write_m2m100(folder)
    if family == "nllb":
        return write_nllb(folder, encoder_layers=1, activation_function="gelu", decoder_attention_heads=4)
    more: dict[str, Any] = {"marian_multilingual": {"languages": ("cs", "de"), "seed": 5}}.get(family, {})
    if family == "marian_two_tables":
        more = {"share_encoder_decoder_embeddings": False}
    if family == "marian_unscaled":
        more = {"scale_embedding": False, "activation_function": "relu", "seed": 5}
    return write_marian(folder, **more)


@pytest.fixture(scope="module", params=list(PAIRS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model of transformers, its import, and both vocabularies with the rows of transformers."""
    register()
    folder = tmp_path_factory.mktemp(request.param)
    theirs = written(request.param, folder / "theirs")
    source_lang, target_lang, language = PAIRS[request.param]
    languages = ["--source-lang", source_lang, "--target-lang", target_lang]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["import", str(folder / "theirs"), str(folder / "ours"), *languages]) == 0
    config = theirs.config
    if request.param.startswith("marian"):
        source = marian_vocabulary(folder / "theirs" / "vocab.json", config.vocab_size)
        own = folder / "theirs" / "target_vocab.json"
        target = marian_vocabulary(own, config.decoder_vocab_size) if own.is_file() else source
        before = [source.place(language.format(target_lang))] if language else []
        behind = []
    else:
        source = target = multilingual_vocabulary(
            folder / "theirs", folder / "theirs" / "sentencepiece.bpe.model", config.vocab_size
        )
        before, behind = ([source.place(language.format(name))] for name in (source_lang, target_lang))
    assert None not in before + behind
    return SimpleNamespace(
        theirs=theirs, source=source, target=target, before=before, start=[config.decoder_start_token_id, *behind],
        path=folder / "ours" / "model.pt", folder=folder, models=load_models(str(folder / "ours" / "model.pt")),
    )  # fmt: skip


def sentences(made: SimpleNamespace, count: int, side: str = "source", seed: int = 1) -> list[list[str]]:
    """Random sentences of several lengths."""
    draw = np.random.default_rng(seed)
    pieces = getattr(made, side).ordered()[:300]
    return [[pieces[row] for row in draw.integers(len(pieces), size=size % 9 + 1)] for size in range(count)]


def source_rows(made: SimpleNamespace, sentence: list[str]) -> list[int]:
    return [*made.before, *(made.source.place(piece) for piece in sentence), made.source.place("</s>")]


@torch.inference_mode()
def their_log_probs(made: SimpleNamespace, source: list[str], target: list[str]) -> torch.Tensor:
    """log p of every entry after each beginning of a target, in the order of our dictionary but for ``<s>``."""
    inputs = [*made.start, *(made.target.place(piece) for piece in target)]
    logits = made.theirs(
        input_ids=torch.tensor([source_rows(made, source)]), decoder_input_ids=torch.tensor([inputs])
    ).logits[0, len(made.start) - 1 :]
    order = [row for row in made.target.order() if row is not None]
    return torch.log_softmax(logits, dim=-1)[:, order]


def batch(made: SimpleNamespace, sources: list[list[str]], targets: list[list[str]], left: bool) -> dict[str, Any]:
    """A batch of fairseq, padded on the left or right of the sources."""
    ours = made.models
    rows = [[*map(ours.source.index, each), ours.source.eos()] for each in sources]
    inputs = [[ours.target.eos(), *map(ours.target.index, each)] for each in targets]
    size, length = max(map(len, rows)), max(map(len, inputs))
    pad = ours.source.pad()
    padded = [[pad] * (size - len(row)) + row if left else row + [pad] * (size - len(row)) for row in rows]
    return {
        "src_tokens": torch.tensor(padded), "src_lengths": torch.tensor([len(row) for row in rows]),
        "prev_output_tokens": torch.tensor([row + [pad] * (length - len(row)) for row in inputs]),
    }  # fmt: skip


@pytest.mark.parametrize("left", [True, False])
def test_log_probabilities_are_those_of_transformers(made, left):
    sources, targets = sentences(made, 6), sentences(made, 6, "target", seed=2)
    net_input, model = batch(made, sources, targets, left), made.models.models[0]
    with torch.inference_mode():
        ours = model.get_normalized_probs(model(**net_input), log_probs=True)
    columns = [place for place, row in enumerate(made.target.order()) if row is not None]
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        expected = their_log_probs(made, source, target)
        torch.testing.assert_close(ours[number, : len(expected), columns], expected, atol=1e-5, rtol=0)
    if len(columns) < ours.size(-1):
        assert float(ours[:, :, 0].max()) < -1000, "<s> must never be generated"


def test_hidden_states_and_output_matrix_give_the_logits(made):
    """Distillation computes them chunk by chunk."""
    model = made.models.models[0]
    net_input = batch(made, sentences(made, 5), sentences(made, 5, "target", seed=2), left=True)
    with torch.inference_mode():
        hidden, weight, bias = student_output(model, net_input, "hidden")
        logits = model(**net_input)[0]
    torch.testing.assert_close(
        torch.nn.functional.linear(hidden, weight, bias), logits.flatten(0, 1), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("lenpen", [0.0, 1.0])
def test_beam_search_finds_what_transformers_finds(made, lenpen):
    """Where all hypotheses end: at the maximum length transformers also returns one without ``</s>``."""
    texts = sentences(made, 40)
    options = RuntimeOptions(SEARCH | {"lenpen": lenpen}, nbest=4, text=False)
    found = runtimes.open(made.path, options).translator.translate(texts)
    compared = 0
    for text, hypotheses in zip(texts, found, strict=True):
        best = hypotheses[0]
        if any(len(each.output) == LONGEST for each in hypotheses):
            continue
        output = made.theirs.generate(
            torch.tensor([source_rows(made, text)]), decoder_input_ids=torch.tensor([made.start]), num_beams=4,
            early_stopping=True, length_penalty=lenpen, max_new_tokens=LONGEST + 1, return_dict_in_generate=True,
            output_scores=True,
        )  # fmt: skip
        rows = output.sequences[0, len(made.start) :].tolist()
        expected = [made.target.symbols[row] for row in rows[: rows.index(made.target.place("</s>"))]]
        assert best.output == expected
        assert best.score == pytest.approx(float(output.sequences_scores[0]), abs=1e-4)
        compared += 1
    assert compared >= 4


def test_forced_first_token_gives_the_same(made):
    """transformers counts the token of the language in the length, so only without a penalty of length."""
    if len(made.start) == 1:
        pytest.skip("its targets have no language tokens")
    texts = sentences(made, 6, seed=3)
    options = RuntimeOptions(SEARCH | {"lenpen": 0.0}, nbest=4, text=False)
    found = runtimes.open(made.path, options).translator.translate(texts)
    for text, hypotheses in zip(texts, found, strict=True):
        output = made.theirs.generate(
            torch.tensor([source_rows(made, text)]), forced_bos_token_id=made.start[1], num_beams=4,
            early_stopping=True, length_penalty=0.0, max_new_tokens=LONGEST + 2,
        )[0, 2:].tolist()  # fmt: skip
        best = hypotheses[0]
        if all(len(each.output) < LONGEST for each in hypotheses):
            end = output.index(made.target.place("</s>"))
            assert best.output == [made.target.symbols[row] for row in output[:end]]


def test_search_of_fairseq_gives_the_same(made):
    texts = sentences(made, 8)
    found = runtimes.open(made.path, RuntimeOptions(SEARCH, nbest=4, text=False)).translator.translate(texts)
    net_input = batch(made, texts, texts, left=True)
    search = SequenceGenerator(
        [load_model_of(made)], made.models.target, beam_size=4, max_len_b=LONGEST, min_len=0, normalize_scores=True
    )
    results = search.generate([search.model.models[0]], {"net_input": net_input})
    for best, expected in zip(found, results, strict=True):
        symbols = [[made.models.target[row] for row in each["tokens"].tolist()[:-1]] for each in expected]
        assert [each.output for each in best] == symbols
        scores = [float(each["score"]) for each in expected]
        np.testing.assert_allclose([each.score for each in best], scores, atol=1e-4)


def load_model_of(made: SimpleNamespace) -> Any:
    return load_models(str(made.path)).models[0]


def test_alignment_has_the_words_of_the_sentences(made):
    """``fairseq-generate --print-alignment``."""
    model = load_model_of(made)
    model.decoder.need_attn = True  # as make_generation_fast_(need_attn=True) sets it
    net_input = batch(made, sentences(made, 4), sentences(made, 4, "target"), left=True)
    with torch.inference_mode():
        attention = model(**net_input)[1]["attn"][0]
    assert attention.shape == (4, net_input["prev_output_tokens"].size(1), net_input["src_tokens"].size(1))


def sentencepiece_options(folder: Path) -> list[str]:
    if (folder / "sentencepiece.model").is_file():
        return ["--sentencepiece-model", str(folder / "sentencepiece.model")]
    names = [(side, str(folder / f"{side}_sentencepiece.model")) for side in ("source", "target")]
    return [word for side, path in names for word in (f"--{side}-sentencepiece-model", path)]


@pytest.fixture(scope="module")
def exported(made: SimpleNamespace) -> Path:
    """A float32 directory of ONNX Runtime."""
    output = made.folder / "float32"
    words = [str(made.path), str(output), *sentencepiece_options(made.path.parent)]
    assert main(["export", *words, "--quantization", "float32", "--no-check"]) == 0
    return output


def test_exported_model_gives_the_same(made, exported):
    texts = sentences(made, 12) + sentences(made, 12, seed=4)
    found = [
        runtimes.open(path, RuntimeOptions(SEARCH, nbest=4, text=False)).translator.translate(texts)
        for path in (made.path, exported)
    ]
    for ours, theirs in zip(*found, strict=True):
        assert [each.output for each in ours] == [each.output for each in theirs]
        np.testing.assert_allclose([each.score for each in ours], [each.score for each in theirs], atol=1e-4)


def test_raw_text_goes_through_every_runtime(made, exported):
    lines = [line.encode() for line in LINES["en"][:5]]
    models = [*sentencepiece_options(made.path.parent)[1::2], None]
    options = RuntimeOptions(SEARCH, segmentation=Segmentation(models[0], models[1]))
    torch_found = runtimes.open(made.path, options).translate(lines)
    onnx_found = runtimes.open(exported, RuntimeOptions(SEARCH)).translate(lines)
    assert [each.hypotheses[0].text for each in torch_found] == [each.hypotheses[0].text for each in onnx_found]


def test_int8_and_packed_4_bits(made, capfd):
    words = sentencepiece_options(made.path.parent)
    packed = made.folder / "int4.safetensors"
    assert main(["quantize", str(made.path), str(packed), "--plan", "int4"]) == 0
    assert main(["describe", str(packed)]) == 0
    assert "multiply-adds" in capfd.readouterr().out
    dictionaries = ["--data", str(made.path.parent)]
    assert main(["export", str(packed), str(made.folder / "int8"), *words, *dictionaries, "--no-check"]) == 0
    found = runtimes.open(made.folder / "int8", RuntimeOptions(SEARCH, text=False)).translator.translate(
        sentences(made, 4)
    )
    assert all(best.score < 0 for (best,) in found)


def test_ctranslate2_keeps_marian_and_refuses_language_tokens(made, capfd):
    pytest.importorskip("ctranslate2")
    words = [*sentencepiece_options(made.path.parent), "--runtime", "ctranslate2", "--quantization", "float32"]
    status = main(["export", str(made.path), str(made.folder / "ct2"), *words, "--no-check"])
    if made.before or len(made.start) > 1:
        assert status == 1
        assert "it adds language tokens to every sentence" in capfd.readouterr().err
        return
    assert status == 0
    texts = sentences(made, 12)
    found = [
        runtimes.open(path, RuntimeOptions(SEARCH, text=False)).translator.translate(texts)
        for path in (made.path, made.folder / "ct2")
    ]
    pairs = [(ours[0], theirs[0]) for ours, theirs in zip(*found, strict=True) if len(ours[0].output) < LONGEST]
    assert sum(ours.output == theirs.output for ours, theirs in pairs) >= 0.9 * len(pairs)


def test_stock_transformer_is_refused(made, capfd):
    assert main(["materialize", str(made.path), str(made.folder / "plain.pt")]) == 1
    message = capfd.readouterr().err
    assert ("its output layer has a bias" in message) == ("marian" in made.folder.name)
    assert not (made.folder / "plain.pt").exists()


def test_parameters_are_those_of_transformers(made):
    """But for what the dictionary and the positions add."""
    model = load_model(made.path).model
    positions = sum(p.numel() for name, p in model.named_parameters() if "embed_positions" in name)
    bias = model.decoder.output_projection.bias
    added = positions + (0 if bias is None else bias.numel())
    rows = [place for vocabulary in (made.source, made.target) for place in vocabulary.order()]
    missing = rows.count(None) // (1 if made.source is not made.target else 2)
    theirs = sum(p.numel() for name, p in made.theirs.named_parameters() if "embed_positions" not in name)
    assert sum(p.numel() for p in model.parameters()) - added == theirs + missing * 16
