"""Options of the model: what they build, what the checkpoint keeps of them, what is refused."""

import argparse
from types import SimpleNamespace

import pytest
import torch
from fairseq import models, options
from fairseq.data import Dictionary
from fairseq.dataclass.configs import EMAConfig
from fairseq.models.ema import EMA
from torch import nn

import fairseq_compress
import fairseq_compress.models as our_models  # noqa: F401 - registers them
from fairseq_compress.checkpoint.teacher_layers import choose_layers
from fairseq_compress.checkpoint.teacher_start import take_over
from fairseq_compress.errors import ConfigError
from fairseq_compress.models.structure import Structure, linear_ranks, structure_of, tensor_train_modes
from fairseq_compress.models.student_output import student_output, why_no_output_matrix
from fairseq_compress.modules.average_attention import AverageAttention
from fairseq_compress.modules.bottleneck_layer import BottleneckDecoderLayer
from fairseq_compress.modules.convolutional_embedding import ConvolutionalEmbedding
from fairseq_compress.modules.factorized_embedding import FactorizedEmbedding
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.sparse_linear import SparseLinear
from fairseq_compress.modules.ssru import SSRU
from fairseq_compress.modules.tensor_train_embedding import TensorTrainEmbedding
from fairseq_compress.plans.attaching import attach_plan
from fairseq_compress.plans.reading import parse_plan
from fairseq_compress.teachers.step_decoders import step_decoder, why_not_fast

fairseq_compress.register()

DICTIONARY = Dictionary()
for number in range(30 - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
SIZES = {
    "encoder_layers": 2, "decoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "dropout": 0.0,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2,
}  # fmt: skip
BATCH = {
    "src_tokens": torch.tensor([[5, 6, 7, 8, 2], [9, 10, 2, 1, 1]]), "src_lengths": torch.tensor([5, 3]),
    "prev_output_tokens": torch.tensor([[2, 11, 12, 13], [2, 14, 15, 1]]),
}  # fmt: skip
KINDS = {
    "factorized": {"embedding_rank": 4},
    "factorized, apart": {"embedding_rank": 4, "share_all_embeddings": False},
    "tensor-train": {"tensor_train_rank": 3, "tensor_train_modes": "4,3,3:4,2,2"},
    "tensor-train, apart": {"tensor_train_rank": 3, "share_all_embeddings": False},
    "convolution": {"embedding_rank": 6, "embedding_convolution": 3},
    "low-rank": {"ffn_rank": 3, "attention_rank": 2, "linear_ranks": "encoder.layers.1.fc?=5"},
    "sparse": {"sparsity": 0.5, "sparse_block": 8},
    "ssru": {"decoder_self_attention": "ssru"},
    "average": {"decoder_self_attention": "average", "average_attention_ffn": 12},
    "shared": {"encoder_layer_groups": 1},
    "bottleneck": {"bottleneck_width": 8, "ffn_stack": 2, "bottleneck_norm": "elementwise"},
    "several": {"embedding_rank": 4, "ffn_rank": 3, "encoder_layer_groups": 1, "decoder_self_attention": "ssru"},
}


def make(**values):
    torch.manual_seed(1)
    return models.build_model(argparse.Namespace(arch="transformer_small", **(SIZES | values)), TASK)


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


@pytest.mark.parametrize("kind", ["factorized", "factorized, apart", "convolution"])
def test_losses_may_start_from_hidden_states(kind):
    model = make(**KINDS[kind]).eval()
    assert why_no_output_matrix(model) is None
    output = student_output(model, BATCH, "hidden")
    assert output.weight.size(1) < 16
    logits = nn.functional.linear(output.hidden, output.weight)
    torch.testing.assert_close(logits, student_output(model, BATCH, "logits"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_our_beam_search_takes_the_fast_decoder_only_where_it_is_right(kind):
    model = make(**KINDS[kind]).eval()
    slow = {"ssru": "SSRU", "average": "AverageAttention", "several": "SSRU", "bottleneck": "BottleneckDecoderLayer",
            "convolution": "those before it", "low-rank": "LowRankLinear", "sparse": "SparseLinear",
            "factorized": "FactorizedOutput", "tensor-train": "TensorTrainOutput"}  # fmt: skip
    reason = why_not_fast(model)
    assert (slow[kind.partition(",")[0]] in reason) if kind.partition(",")[0] in slow else reason is None
    with torch.no_grad():
        state = step_decoder(model).start(BATCH["src_tokens"], BATCH["src_lengths"])
        expected = torch.log_softmax(model(**BATCH)[0], -1)
        for step in range(3):
            found = state.log_probs(BATCH["prev_output_tokens"][:, step : step + 1])
            torch.testing.assert_close(found, expected[:, step], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["tensor-train", "factorized", "low-rank", "sparse"])
def test_a_student_of_the_same_structure_starts_as_its_teacher(kind):
    teacher, student = make(**KINDS[kind]).eval(), make(**KINDS[kind]).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    layers, _ = choose_layers({}, student, teacher)
    take_over(student, teacher, layers, "refuse", "teacher.pt")
    torch.testing.assert_close(student(**BATCH)[0], teacher(**BATCH)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_moving_average_of_weights_of_fairseq(kind):
    model = make(**KINDS[kind])
    average = EMA(model, EMAConfig(store_ema=True, ema_decay=0.5), skip_keys=set())
    old = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    average.step(model, 1)
    name = next(name for name, parameter in model.named_parameters() if parameter.dim() == 1)
    torch.testing.assert_close(average.get_model().state_dict()[name], old[name] + 0.5)
    for name, value in average.get_model().state_dict().items():
        assert value.is_floating_point() or torch.equal(value, old[name])


def test_hydra_gives_numbers_as_texts():
    assert structure_of(argparse.Namespace(ffn_rank="4", sparsity="0.5")) == Structure(ffn_rank=4, sparsity=0.5)
    for wrong in (4.5, "4.5", "four", [4]):
        with pytest.raises(ConfigError, match="--ffn-rank: must be a whole number, got"):
            structure_of(argparse.Namespace(ffn_rank=wrong))


def test_ranks_that_save_nothing_are_told(caplog):
    make(ffn_rank=9)
    make(ffn_rank=10)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        "encoder.layers.0.fc1 and 5 more layers: their factors hold no fewer numbers than a dense matrix"
    ]


def test_a_plan_tells_which_layers_it_leaves(caplog):
    attach_plan(parse_plan("weights:\n  - {modules: ['*'], bits: 8}\n", "plan"), make(**KINDS["sparse"]))
    assert "22 layers that * matches stay as they are" in caplog.text


def test_a_tensor_train_has_no_output_matrix():
    assert "TensorTrainOutput" in why_no_output_matrix(make(**KINDS["tensor-train"]))


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
    assert structure_of(args) == Structure(ffn_rank=8, sparsity=0.5, sparse_layout="barabasi_albert")


def test_ranks_by_name():
    structure = Structure(ffn_rank=8, attention_rank=4, linear_ranks="encoder.*.fc1=16, *.out_proj=2")
    assert linear_ranks(structure) == [
        ("*.fc1", 8), ("*.fc2", 8), ("*_attn.*_proj", 4), ("encoder.*.fc1", 16), ("*.out_proj", 2)
    ]  # fmt: skip
    assert tensor_train_modes(Structure(tensor_train_modes="4,3,3:4,2,2")) == ([4, 3, 3], [4, 2, 2])


def test_all_problems_come_in_one_message():
    with pytest.raises(ConfigError) as error:
        structure_of(argparse.Namespace(
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
        ({"ffn_rank": 17}, "--ffn-rank, --attention-rank: encoder.layers.0.fc1: rank: must be from 1 to 16"),
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
        ({"embedding_rank": 40}, "--embedding-rank: rank: must be from 1 to 16"),
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
