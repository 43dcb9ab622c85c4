"""Options of the model: what they build, what the checkpoint keeps of them, what is refused."""

import argparse

import pytest
import torch
from fairseq import options

import fairseq_compress
from fairseq_compress.architecture.configuration import from_flags
from fairseq_compress.architecture.flags import ShapeFlags, flags_of, linear_ranks
from fairseq_compress.errors import ConfigError
from fairseq_compress.modules.average_attention import AverageAttention
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.ssru import SSRU
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding
from tests.helpers.structures import BATCH, KINDS, make

fairseq_compress.register()


def parts(model, kind):
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


def test_each_option_builds_its_part():
    assert len(parts(make(**KINDS["factorized"]), FactorizedEmbedding)) == 1
    assert len(parts(make(**KINDS["factorized, apart"]), FactorizedEmbedding)) == 2
    assert len(parts(make(**KINDS["tensor-train"]), TensorTrainEmbedding)) == 1
    model = make(**KINDS["convolution"])
    assert parts(model, ConvolutionalEmbedding) == ["encoder.embed_tokens", "decoder.embed_tokens"]
    assert model.encoder.embed_tokens.table.weight is model.decoder.output_projection.weight
    low_rank = make(**KINDS["low-rank"])
    ranks = {name: module.rank for name, module in low_rank.named_modules() if isinstance(module, LowRankLinear)}
    assert len(ranks) == 2 * (2 + 4) + 2 + 8
    assert {ranks[f"encoder.layers.{layer}.fc1"] for layer in (0, 1)} == {3, 5}
    assert ranks["decoder.layers.0.encoder_attn.k_proj"] == 2
    assert len(parts(make(**KINDS["sparse"]), SparseLinear)) == 22
    assert len(parts(make(**KINDS["ssru"]), SSRU)) == len(parts(make(**KINDS["average"]), AverageAttention)) == 1
    assert len(parts(make(**KINDS["bottleneck"]), BottleneckDecoderLayer)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_step_by_step_is_teacher_forcing(kind):
    model = make(**KINDS[kind]).eval()
    whole = model(**BATCH)[0]
    encoded = model.encoder(BATCH["src_tokens"], BATCH["src_lengths"])
    state: dict = {}
    for step in range(1, 4):
        previous = BATCH["prev_output_tokens"][:, :step]
        out = model.decoder(previous, encoder_out=encoded, incremental_state=state)[0]
        torch.testing.assert_close(out[:, -1], whole[:, step - 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    model = make(**KINDS[kind]).eval()
    alone = model(BATCH["src_tokens"][1:, :3], torch.tensor([3]), BATCH["prev_output_tokens"][1:, :3])[0]
    torch.testing.assert_close(model(**BATCH)[0][1:, :3], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient_and_the_state_dict_loads(kind):
    model = make(**KINDS[kind])
    model(**BATCH)[0].square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in without if not name.endswith("k_proj.bias")] == []  # softmax does not see a key's bias
    other = make(**KINDS[kind])
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other.eval()(**BATCH)[0], model.eval()(**BATCH)[0])


def test_hydra_gives_numbers_as_texts():
    assert flags_of(argparse.Namespace(ffn_rank="4", sparsity="0.5")) == ShapeFlags(ffn_rank=4, sparsity=0.5)
    for wrong in (4.5, "4.5", "four", [4]):
        with pytest.raises(ConfigError, match="--ffn-rank: must be a whole number, got"):
            flags_of(argparse.Namespace(ffn_rank=wrong))


def test_ranks_that_save_nothing_are_told(caplog):
    make(ffn_rank=9)
    make(ffn_rank=10)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "encoder.layers.0.fc1 and 5 more layers: their factors hold no fewer numbers than a dense matrix"
    ]


def test_the_command_line_declares_every_option():
    parser = options.get_training_parser()
    args = options.parse_args_and_arch(
        parser,
        [
            "data-bin",
            "--arch",
            "transformer_small",
            "--ffn-rank",
            "8",
            "--sparsity",
            "0.5",
            "--sparse-layout",
            "barabasi_albert",
        ],
    )
    assert (args.ffn_rank, args.sparse_layout) == (8, "barabasi_albert")
    assert not hasattr(args, "embedding_rank")
    assert flags_of(args) == ShapeFlags(ffn_rank=8, sparsity=0.5, sparse_layout="barabasi_albert")


def test_ranks_by_name():
    structure = ShapeFlags(ffn_rank=8, attention_rank=4, linear_ranks="encoder.*.fc1=16, *.out_proj=2")
    assert linear_ranks(structure) == [
        ("*.fc1", 8), ("*.fc2", 8), ("*_attn.*_proj", 4), ("encoder.*.fc1", 16), ("*.out_proj", 2)
    ]  # fmt: skip
    sizes = {f"{part}_{name}": 16 for part in ("encoder", "decoder") for name in ("embed_dim", "ffn_embed_dim")}
    heads = {f"{part}_{name}": 1 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    options = {"tensor_train_rank": 2, "tensor_train_modes": "4,3,3:4,2,2"}
    embeddings = from_flags(argparse.Namespace(**sizes, **heads, **options)).embeddings
    assert (embeddings.entry_modes, embeddings.width_modes) == ((4, 3, 3), (4, 2, 2))


def test_all_problems_come_in_one_message():
    with pytest.raises(ConfigError) as error:
        flags_of(argparse.Namespace(
            embedding_rank=4, tensor_train_rank=4, sparsity=1.5, ffn_rank=-1, ffn_stack=2, layer_sharing="spiral",
            encoder_layer_groups=3, encoder_layers=2, encoder_embed_path="glove.txt",
        ))  # fmt: skip
    message = str(error.value)
    for option in (
        "--embedding-rank", "--sparsity", "--ffn-rank", "--ffn-stack", "--layer-sharing", "--encoder-layer-groups",
        "--encoder-embed-path",
    ):  # fmt: skip
        assert option in message
    assert "got 1.5" in message


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"linear_ranks": "encoder.fc1"}, "--linear-ranks"),
        ({"linear_ranks": "nothing.*=4"}, "--linear-ranks"),
        ({"ffn_rank": 17}, "encoder.layers[0].matrices: fc1: rank: must be in [1, 16] for 16 -> 24, got 17"),
        ({"bottleneck_norm": "elementwise"}, "--bottleneck-norm"),
        ({"layer_sharing": "cycle"}, "--layer-sharing"),
        ({"sparse_block": 8}, "--sparse-block"),
        ({"sparse_modules": "nothing"}, "--sparse-modules"),
        ({"embedding_rank": 4, "embedding_convolution": 2}, "--embedding-convolution: must be odd"),
        ({"embedding_rank": 4, "embedding_convolution": 3, "decoder_output_dim": 9}, "--decoder-output-dim"),
        ({"bottleneck_width": 5}, "--bottleneck-width: must be a multiple of the 2 heads"),
        ({"ffn_rank": 4, "sparsity": 0.5}, "--sparse-modules"),
        ({"sparsity": 0.5, "sparse_block": 16}, "24"),
        ({"tensor_train_modes": "4,3,3"}, "--tensor-train-modes"),
        ({"tensor_train_rank": 4, "tensor_train_modes": "4,x:4"}, "--tensor-train-modes"),
        ({"tensor_train_rank": 4, "tensor_train_modes": "2,3,3:4,2,2"}, "--tensor-train-modes"),
        ({"embedding_rank": 40}, "--embedding-rank: rank: must be in [1, 16]"),
        ({"embedding_convolution": 3}, "--embedding-convolution"),
        ({"average_attention_ffn": 8}, "--average-attention-ffn"),
        ({"decoder_self_attention": "ssru", "cross_self_attention": True}, "--cross-self-attention"),
        ({"decoder_self_attention": "ssru", "bottleneck_width": 8}, "--decoder-self-attention"),
        ({"bottleneck_width": 8, "encoder_normalize_before": True}, "--encoder-normalize-before"),
        ({"bottleneck_width": 8, "decoder_normalize_before": True}, "--decoder-normalize-before"),
        ({"ffn_rank": 4, "quant_noise_pq": 0.1, "quant_noise_pq_block_size": 8}, "--quant-noise-pq"),
    ],
)
def test_what_makes_no_sense_is_refused(values, named):
    with pytest.raises(ConfigError) as error:
        make(**values)
    assert named in str(error.value)
