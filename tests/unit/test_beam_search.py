"""Our beam search against fairseq's SequenceGenerator: token for token, on small random models of several shapes."""

import logging
import math
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerModel, base_architecture
from fairseq.ngram_repeat_block import NGramRepeatBlock
from fairseq.sequence_generator import SequenceGenerator

import fairseq_compress
from fairseq_compress.architecture.configuration import implied_flags
from fairseq_compress.architecture.reading import from_json
from fairseq_compress.decoding.search_options import SearchOptions
from fairseq_compress.errors import CheckpointError, ConfigError, DataError
from fairseq_compress.models.compressed_transformer import CompressedTransformerModel
from fairseq_compress.runtimes.torch.model import TorchModel
from fairseq_compress.runtimes.torch.step_decoders import GeneralDecoder, step_decoder
from fairseq_compress.runtimes.torch.steps import LOGITS_AT_ONCE, best_candidates
from fairseq_compress.runtimes.torch.tree_decoder import TreeDecoder
from fairseq_compress.teachers.loading import LoadedModels, load_models
from tests.helpers.structures import UNEVEN, UNEVEN_DECODER

fairseq_compress.register()
SHAPES = {
    "post-norm": {},
    "pre-norm, learned positions, gelu": {
        "encoder_normalize_before": True, "decoder_normalize_before": True, "decoder_learned_pos": True,
        "encoder_learned_pos": True, "activation_fn": "gelu",
    },
    "norm of the embedding, no scale, shared output": {
        "layernorm_embedding": True, "no_scale_embedding": True, "share_all_embeddings": True,
    },
    "other widths": {
        "seed": 2, "encoder_embed_dim": 24, "decoder_input_dim": 12, "decoder_output_dim": 20,
        "decoder_attention_heads": 2,
    },
    "no positions, one layer": {"seed": 2, "no_token_positional_embeddings": True, "decoder_layers": 1},
}  # fmt: skip


def dictionary(words):
    entries = Dictionary()
    for word in range(words):
        entries.add_symbol(f"w{word}")
    return entries


def build(seed=0, words=40, kind=TransformerModel, peak=2, **options):
    """A random model whose distributions are peaked, so that hypotheses end and none are nearly equal."""
    torch.manual_seed(seed)
    values = {
        "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_layers": 2, "decoder_attention_heads": 4, "max_source_positions": 60, "max_target_positions": 60,
    }  # fmt: skip
    args = Namespace(**values | options)
    base_architecture(args)
    entries = dictionary(words)
    model = kind.build_model(args, SimpleNamespace(source_dictionary=entries, target_dictionary=entries))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(peak).add_(torch.randn_like(parameter) * 0.1)
        if model.decoder.output_projection is not None:
            model.decoder.output_projection.weight[2] *= 3  # the end is now and then likely
    return model.eval().requires_grad_(False)


def loaded(*models, precision="float32"):
    entries = models[0].decoder.dictionary
    return LoadedModels(list(models), entries, entries, "en", "cs", {}, precision)


def sentences(count=12, words=40, seed=1):
    draw = torch.Generator().manual_seed(seed)
    lengths = [1, 40, *torch.randint(2, 14, (count - 2,), generator=draw).tolist()]
    return [[*torch.randint(4, 4 + words, (length,), generator=draw).tolist(), 2] for length in lengths]


def of_fairseq(models, batch, options):
    generator = SequenceGenerator(
        models, models[0].decoder.dictionary, beam_size=options.beam, len_penalty=options.lenpen,
        max_len_a=options.max_len_a, max_len_b=options.max_len_b, min_len=options.min_len, unk_penalty=options.unkpen,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
    )  # fmt: skip
    lengths = torch.tensor([len(sentence) for sentence in batch])
    source = torch.full((len(batch), int(lengths.max())), 1)
    for row, sentence in enumerate(batch):
        source[row, -len(sentence) :] = torch.tensor(sentence)  # fairseq pads on the left
    found = generator.generate(models, {"net_input": {"src_tokens": source, "src_lengths": lengths}})
    return [[(best["tokens"].tolist()[:-1], best["score"].item()) for best in each] for each in found]


def check_equal(models, batch, options):
    expected = of_fairseq(models, batch, options)
    found = TorchModel(loaded(*models), options).search(batch)
    for one, two in zip(found, expected, strict=True):
        assert [best.output for best in one] == [tokens for tokens, _ in two]
        assert [best.score for best in one] == pytest.approx([score for _, score in two], abs=1e-4)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [TransformerModel, CompressedTransformerModel])
def test_equal_for_every_shape(shape, kind):
    model = build(kind=kind, **SHAPES[shape])
    assert isinstance(step_decoder(model), TreeDecoder)
    found = check_equal([model], sentences(), SearchOptions(beam=5, max_len_b=25))
    assert len({len(tokens) for each in found for _, tokens in each}) > 5  # of many lengths


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("lenpen", [0.5, 1.0])
def test_equal_for_every_beam(beam, lenpen):
    check_equal([build(2)], sentences(), SearchOptions(beam=beam, lenpen=lenpen, max_len_b=30))


@pytest.mark.parametrize("options", [{"min_len": 7}, {"min_len": 0}, {"unkpen": 3.5}, {"unkpen": -3.5}])
def test_equal_for_every_option(options):
    check_equal([build(2)], sentences(), SearchOptions(beam=4, max_len_b=30, **options))


class SlowBlock(torch.nn.Module):
    """The definition, token by token: v is forbidden after w if w·v has its last n-gram twice."""

    def __init__(self, no_repeat_ngram_size):
        super().__init__()
        self.size = no_repeat_ngram_size

    def forward(self, tokens, lprobs, bsz, beam_size, step):
        for row in range(len(tokens)):
            words = tokens[row, 1 : step + 1].tolist()
            for token in range(lprobs.size(1)):
                if repeats([*words, token], self.size):
                    lprobs[row, token] = -math.inf
        return lprobs


def repeats(words, size):
    ngrams = [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]
    return len(set(ngrams)) < len(ngrams)


NGRAMS = [(1, 2), (4, 1), (4, 2), (5, 3)]


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize(("beam", "size"), NGRAMS)
def test_no_ngram_twice(beam, size, seed, monkeypatch):
    """With the slow definition in fairseq's generator, with fairseq's own block as it is mended, and ours."""
    model = build(seed)
    options = SearchOptions(beam=beam, max_len_b=30, min_len=12, no_repeat_ngram_size=size)
    found = check_equal([model], sentences(), options)
    assert not any(repeats(best.output, size) for each in found for best in each)
    monkeypatch.setattr("fairseq.sequence_generator.NGramRepeatBlock", SlowBlock)
    check_equal([model], sentences(), options)
    check_equal([model, build(seed + 10)], sentences(), options)


def test_ngrams_repeat_where_they_may():
    """What the tests above forbid would be there."""
    for beam, size in NGRAMS:
        found = TorchModel(loaded(build(2)), SearchOptions(beam=beam, max_len_b=30, min_len=12))
        assert any(repeats(best.output, size) for each in found.search(sentences()) for best in each), (beam, size)


def test_stock_fairseq_forbids_nothing():
    """If this fails, fairseq was repaired and the mend can go."""
    stock = NGramRepeatBlock.forward._fairseq_compress_original
    tokens = torch.tensor([[2, 5, 6, 5, 1, 1, 1]])
    assert stock(NGramRepeatBlock(2), tokens, torch.zeros(1, 9), 1, 1, 3).eq(0).all()
    mended = NGramRepeatBlock(2)(tokens, torch.zeros(1, 9), 1, 1, 3)
    assert mended.isinf().nonzero().tolist() == [[0, 6]]
    mended = NGramRepeatBlock(1)(tokens, torch.zeros(1, 9), 1, 1, 3)
    assert mended.isinf().nonzero().tolist() == [[0, 5], [0, 6]]  # not EOS, with which fairseq's hypotheses begin


@pytest.mark.parametrize(("a", "b"), [(0, 1), (0, 3), (0.2, 2), (0, 200)])  # 200: the positions of the model end first
def test_equal_at_the_greatest_length(a, b):
    check_equal([build(3)], sentences(), SearchOptions(beam=4, max_len_a=a, max_len_b=b))


def test_equal_with_a_large_dictionary():
    """Where the best are found block by block, in several pieces of the batch."""
    check_equal([build(4, words=2000)], sentences(words=2000), SearchOptions(beam=5, max_len_b=20))


def test_pieces_of_the_batch_do_not_matter(monkeypatch):
    monkeypatch.setitem(LOGITS_AT_ONCE, "cpu", 1)
    check_equal([build(4, words=700)], sentences(words=700), SearchOptions(beam=5, max_len_b=20))


@pytest.mark.parametrize("options", [{}, {"encoder_normalize_before": True, "decoder_normalize_before": True}])
def test_equal_for_an_ensemble(options):
    check_equal([build(5), build(6, **options)], sentences(), SearchOptions(beam=3, max_len_b=20))


@pytest.mark.parametrize("count", [1, 2])
def test_the_general_path_is_equal_and_says_so(caplog, count):
    models = [build(seed) for seed in range(count)]
    models[0].decoder.layers[0].fc1.register_forward_hook(lambda module, inputs, output: output * 1.5)
    with caplog.at_level(logging.WARNING):
        assert isinstance(step_decoder(models[0]), GeneralDecoder)
    assert "decoder.layers.0.fc1 has hooks" in caplog.text
    check_equal(models, sentences(), SearchOptions(beam=4, max_len_b=20))


def test_what_is_not_plain_goes_the_general_way():
    class Other(torch.nn.Linear):
        pass

    model = build()
    model.decoder.layers[1].self_attn.q_proj = Other(16, 16)
    assert isinstance(step_decoder(model), GeneralDecoder)
    model = build()
    model.decoder.layers[1].self_attn.num_heads = 2
    assert isinstance(step_decoder(model), GeneralDecoder)
    assert isinstance(step_decoder(build(adaptive_softmax_cutoff="10,20")), GeneralDecoder)
    assert isinstance(step_decoder(build(cross_self_attention=True)), GeneralDecoder)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)], ids=str)
def test_batches_do_not_matter(dtype, tolerance):
    """In float32 the products of a batch and of a sentence are rounded apart, in other ways on each processor."""
    search = TorchModel(loaded(build(7).to(dtype)), SearchOptions(beam=4, max_len_b=25))
    batch = sentences()
    together = search.search(batch)
    for sentence, expected in zip(batch, together, strict=True):
        (alone,) = search.search([sentence])
        assert [best.output for best in alone] == [best.output for best in expected]
        assert [best.score for best in alone] == pytest.approx([best.score for best in expected], abs=tolerance)


def test_bfloat16_is_near():
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model = build(8, peak=1).to(dtype)  # in a peaked one a small difference leads far away
        found.append(TorchModel(loaded(model), SearchOptions(beam=2, max_len_b=10)).search(sentences()))
    for exact, rough in zip(*found, strict=True):
        assert rough[0].score == pytest.approx(exact[0].score, abs=0.1)


def test_int8_is_near_and_really_int8():
    model = build(8, peak=1)
    options = SearchOptions(beam=2, max_len_b=10)
    exact, rough = (
        TorchModel(loaded(model, precision=precision), options).search(sentences()) for precision in ("float32", "int8")
    )
    assert [found[0].score for found in rough] == pytest.approx([found[0].score for found in exact], abs=0.1)
    assert [found[0].score for found in rough] != [found[0].score for found in exact]


def test_int8_of_what_it_cannot_do():
    model = build()
    model.decoder.layers[0].fc1.weight[0, 0] = float("inf")
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        TorchModel(loaded(model, precision="int8"), SearchOptions(beam=2))
    hooked = build()
    hooked.decoder.layers[0].fc1.register_forward_hook(lambda module, inputs, output: output)
    with pytest.raises(
        ConfigError, match=r"--precision: must be float32 or bfloat16 for this model, got int8; .*hooks"
    ):
        TorchModel(loaded(hooked, precision="int8"), SearchOptions(beam=2))
    with pytest.raises(ConfigError, match="--precision: must be float32 or bfloat16 on a GPU, got int8"):
        load_models("model.pt", precision="int8", device="cuda")


@pytest.mark.parametrize(("words", "group", "count"), [(64, 3, 4), (128, 5, 10), (256, 1, 10), (40, 5, 10), (8, 1, 10)])
def test_best_candidates_against_a_plain_topk(words, group, count):
    log_probs = torch.randn(6, group, words)
    scores = torch.randn(6, group) * 2
    found = best_candidates(log_probs, scores, count)
    best, place = (log_probs + scores[:, :, None]).flatten(1).topk(min(count, group * words - 1))
    for one, two in zip(found, (best, place % words, place // words), strict=True):
        assert torch.equal(one, two)


def test_a_model_of_nans_is_refused():
    model = build()
    model.decoder.layers[0].fc1.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="the model gives NaN"):
        TorchModel(loaded(model), SearchOptions(beam=2, max_len_b=5)).search(sentences())


def test_options_out_of_range_are_named_together():
    with pytest.raises(ConfigError, match=r"--beam.*--lenpen.*--max-len-a.*--max-len-b"):
        SearchOptions(0, float("nan"), -1, 0)
    with pytest.raises(ConfigError, match="--beam: must be at most 42 with this dictionary, got 43"):
        TorchModel(loaded(build()), SearchOptions(beam=43))


@pytest.mark.parametrize("architecture", [UNEVEN, UNEVEN_DECODER], ids=["one decoder layer", "two"])
def test_equal_where_layers_differ(architecture):
    model = build(kind=CompressedTransformerModel, architecture=architecture, **implied_flags(from_json(architecture)))
    assert isinstance(step_decoder(model), TreeDecoder)
    check_equal([model], sentences(), SearchOptions(beam=5, max_len_b=25))
