"""Hidden states and output matrix of a model: the same logits and gradients, also inside of DDP; refused elsewhere."""

import argparse
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fairseq import models
from fairseq.data import Dictionary
from fairseq.distributed import LegacyDistributedDataParallel, ModuleProxyWrapper
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.outputs import Projected
from fairseq_compress.models.student_output import student_output
from tests.conftest import ROOT

DICTIONARY = Dictionary()
for number in range(40 - len(DICTIONARY)):
    DICTIONARY.add_symbol(f"w{number}")
TASK = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
DRAWN = torch.randint(4, 40, (3, 6), generator=torch.Generator().manual_seed(1))
NET_INPUT = {"src_tokens": DRAWN, "src_lengths": torch.full((3,), 6), "prev_output_tokens": DRAWN.flip(1)}
TARGET = DRAWN.roll(1)


def make_model(architecture="transformer_small", **values):
    small = {
        "encoder_layers": 1, "decoder_layers": 1, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24,
        "decoder_ffn_embed_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "dropout": 0.0,
        "share_all_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(5)
    return models.build_model(argparse.Namespace(arch=architecture, **(small | values)), TASK)


def gradients(model, source, wrapped=None, rows=slice(None)):
    """Loss and gradients of some sentences of the batch."""
    model.zero_grad(set_to_none=True)
    net_input = {name: tensor[rows] for name, tensor in NET_INPUT.items()}
    output = student_output(wrapped or model, net_input, source)
    assert isinstance(output, Projected) == (source == "hidden")
    loss = label_smoothed_loss(output, TARGET[rows].flatten(), label_smoothing=0.1).loss
    loss.backward()
    if isinstance(getattr(wrapped, "module", None), LegacyDistributedDataParallel):
        wrapped.all_reduce_grads()
    return {"loss": loss.detach(), **{name: weight.grad for name, weight in model.named_parameters()}}


def assert_equal(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert value is not None, name
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("architecture", "values"),
    [
        ("transformer_small", {}),
        ("transformer_small", {"share_all_embeddings": False}),
        ("transformer", {"decoder_output_dim": 12, "share_all_embeddings": False}),
        ("transformer", {}),
    ],
)
def test_hidden_states_give_the_gradients_of_logits(architecture, values):
    model = make_model(architecture, **values).train()
    assert_equal(gradients(model, "hidden"), gradients(model, "logits"))


def test_hidden_states_are_contiguous_rows_of_the_logits():
    model = make_model().eval()
    hidden, logits = (student_output(model, NET_INPUT, source) for source in ("auto", "logits"))
    assert hidden.hidden.is_contiguous()
    assert logits.shape == (18, 40)
    torch.testing.assert_close(F.linear(*hidden), logits)
    torch.testing.assert_close(logits, model(**NET_INPUT)[0].reshape(18, 40))


def test_a_bias_and_a_parametrized_weight_are_read():
    class Doubled(nn.Module):
        def forward(self, weight):
            return 2 * weight

    model = make_model(share_all_embeddings=False).train()
    projection = nn.Linear(16, 40)
    parametrize.register_parametrization(projection, "weight", Doubled())
    model.decoder.output_projection = projection
    assert_equal(gradients(model, "hidden"), gradients(model, "logits"))
    assert torch.equal(student_output(model, NET_INPUT, "hidden").weight, projection.weight)


def test_autocast_decides_the_type_of_the_product():
    model = make_model().train()
    with torch.autocast("cpu", torch.bfloat16):
        hidden, logits = (student_output(model, NET_INPUT, source) for source in ("auto", "logits"))
    assert hidden.hidden.dtype == torch.bfloat16
    assert hidden.weight.dtype == torch.float32
    assert torch.equal(F.linear(hidden.hidden, hidden.weight.bfloat16()), logits)
    losses = [label_smoothed_loss(output, TARGET.flatten()).loss for output in (hidden, logits)]
    assert torch.equal(*losses)


def test_auto_takes_logits_in_float16():
    model = make_model().half().eval()
    assert student_output(model, NET_INPUT, "auto").dtype == torch.float16
    assert isinstance(student_output(model, NET_INPUT, "hidden"), Projected)


def hooked(model):
    model.decoder.output_projection.register_forward_pre_hook(lambda module, inputs: None)
    return model


def hooked_decoder(model):
    model.decoder.register_forward_hook(lambda module, inputs, output: None)
    return model


def with_own_output_layer(model):
    class Louder(type(model.decoder)):
        def output_layer(self, features):
            return 2 * super().output_layer(features)

    model.decoder.__class__ = Louder
    return model


def with_own_linear(model):
    class Noisy(nn.Linear):
        def forward(self, features):
            return super().forward(features) + 1

    model.decoder.output_projection.__class__ = Noisy
    return model


def with_own_forward(model):
    class Other(type(model.decoder)):
        def forward(self, *arguments, features_only=False, **options):
            return super().forward(*arguments, **options)

    model.decoder.__class__ = Other
    return model


def with_own_model_forward(model):
    class Other(type(model)):
        def forward(self, *arguments, features_only=False, **options):
            return super().forward(*arguments, **options)

    model.__class__ = Other
    return model


def sharded(model):
    class FullyShardedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, **net_input):
            return self.module(**net_input)

    return FullyShardedDataParallel(model)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (hooked, "got hooks on the decoder's output"),
        (hooked_decoder, "got hooks on the decoder's output"),
        (with_own_output_layer, "got the decoder Louder with an output layer of its own"),
        (with_own_linear, "got a decoder with the output Noisy"),
        (with_own_forward, "got the decoder Other with a forward of its own"),
        (with_own_model_forward, "got the model Other with a forward of its own"),
        (sharded, "got a sharded one"),
    ],
)
def test_what_is_no_plain_product_falls_back_to_logits_or_is_refused(change, reason):
    model = change(make_model().eval())
    assert torch.equal(student_output(model, NET_INPUT, "auto"), model(**NET_INPUT)[0].reshape(18, 40))
    with pytest.raises(ConfigError, match=f"--loss-from hidden: .* one plain output matrix, {reason}"):
        student_output(model, NET_INPUT, "hidden")


@pytest.mark.parametrize("source", ["auto", "hidden", "logits"])
def test_adaptive_softmax_is_refused(source):
    model = make_model("transformer", share_all_embeddings=False, adaptive_softmax_cutoff="20,30").eval()
    with pytest.raises(
        ConfigError, match="--adaptive-softmax-cutoff: must not be given here, the loss needs logits of"
    ):
        student_output(model, NET_INPUT, source)


def test_an_output_matrix_of_another_width_is_refused():
    """A tied one has the width of the embeddings."""
    model = make_model("transformer", share_all_embeddings=True, decoder_output_dim=4).eval()
    with pytest.raises(ConfigError, match=r"--decoder-output-dim: must be \d+, the width of the output matrix, got 4"):
        student_output(model, NET_INPUT)


def test_unknown_sources_are_refused():
    with pytest.raises(ConfigError, match="--loss-from: must be one of auto, hidden, logits, got 'probabilities'"):
        student_output(make_model(), NET_INPUT, "probabilities")


def wrap(model, backend, group, **options):
    """As fairseq does, which cannot wrap for ``pytorch_ddp`` on a CPU."""
    if backend == "pytorch_ddp":
        wrapped = DistributedDataParallel(model, process_group=group, **options)
    else:
        wrapped = LegacyDistributedDataParallel(model, group, buffer_size=2**20)
    return ModuleProxyWrapper(wrapped)


@pytest.fixture
def one_process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


def test_a_ddp_that_looks_for_unused_parameters_gets_logits(one_process_group):
    model = make_model().train()
    wrapped = wrap(model, "pytorch_ddp", one_process_group, find_unused_parameters=True)
    assert not isinstance(student_output(wrapped, NET_INPUT, "auto"), Projected)
    with pytest.raises(ConfigError, match="--find-unused-parameters"):
        student_output(wrapped, NET_INPUT, "hidden")


def two_processes(rank, folder):
    """Both ways of DDP, tied and untied: each process has some sentences, and the mean times two is their sum."""
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for tied in (True, False):
        model = make_model(share_all_embeddings=tied).train()
        want = gradients(model, "logits")
        for backend in ("pytorch_ddp", "legacy_ddp"):
            wrapped = wrap(make_model(share_all_embeddings=tied).train(), backend, torch.distributed.group.WORLD)
            for _ in range(2):  # the second pass fails if the first left a parameter without its gradient
                got = gradients(wrapped.module.module, "hidden", wrapped, rows=slice(rank, None, 2))
                torch.distributed.all_reduce(got["loss"].div_(2))
                for value in got.values():
                    value.mul_(2)
                assert_equal(got, want)
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_gradients_of_one(tmp_path):
    """DDP's reducer waits for each parameter once, and the output matrix is used outside of its forward pass."""
    code = (
        "import sys, torch, tests.unit.test_student_output as test\n"
        "torch.multiprocessing.start_processes(test.two_processes, (sys.argv[1],), 2, start_method='fork')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
