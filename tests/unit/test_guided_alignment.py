"""Guided alignment: against a loop, and against fairseq's criterion with the same model and links."""

import json
import math
import random

import pytest
import torch
from fairseq.criterions.label_smoothed_cross_entropy_with_alignment import (
    LabelSmoothedCrossEntropyCriterionWithAlignment,
)

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.guided_alignment import guided_alignment_loss
from fairseq_compress.jobs.aligners.attention import trained_attention
from tests.conftest import TINY, binarize, run_command
from tests.helpers import hidden_states
from tests.helpers.loss_helpers import gradcheck

GUIDED = ("--guided-alignment-weight", 0.3, "--load-alignments")


def slow_loop(maps, links, weights):
    """The definition, link by link: maps (B, H, T, S)."""
    _, heads, targets, _ = maps.shape
    total = 0.0
    for (s, place), weight in zip(links.tolist(), weights.tolist(), strict=True):
        b, t = divmod(place, targets)
        total -= weight * math.log(sum(maps[b, h, t, s].item() for h in range(heads)) / heads)
    return total


@pytest.mark.parametrize("heads", [1, 3])
def test_equals_the_slow_loop(heads):
    draw = torch.Generator().manual_seed(1)
    scores = torch.randn(2, heads, 5, 4, generator=draw, dtype=torch.float64)
    links = torch.tensor([[0, 0], [3, 0], [2, 4], [1, 9], [0, 5]])
    weights = torch.tensor([0.5, 0.5, 1, 1, 1])
    found = guided_alignment_loss(scores.log_softmax(3), links, weights)
    assert found.item() == pytest.approx(slow_loop(scores.softmax(3), links, weights), rel=1e-12)
    assert gradcheck(lambda x: guided_alignment_loss(x.log_softmax(3), links, weights), scores)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("aligned"), random.Random(1)
    for split, count in (("train", 60), ("valid", 12)):
        with (
            open(folder / f"{split}.en", "w") as source, open(folder / f"{split}.cs", "w") as target,
            open(folder / f"{split}.align", "w") as align,
        ):  # fmt: skip
            for number in range(count):
                sizes = draw.randint(1, 7), draw.randint(1, 7)
                for stream, size in zip((source, target), sizes, strict=True):
                    stream.write(" ".join(f"w{draw.randrange(20)}" for _ in range(size)) + "\n")
                links = {tuple(draw.randrange(size) for size in sizes) for _ in range(draw.randint(1, 6))}
                align.write(" ".join(f"{s}-{t}" for s, t in sorted(links)) + "\n" if number else "0-0\n")
    prefixes = {"trainpref": folder / "train", "validpref": folder / "valid"}
    return binarize(folder / "bin", prefixes, "--align-suffix", "align")


def arguments(data, *more):
    return [
        str(data), "--task", "compressed_translation", "-s", "en", "-t", "cs", "--cpu", "--arch", "transformer_small",
        *TINY, "--decoder-layers", "2", "--dropout", "0", "--optimizer", "adam", "--max-tokens", "200", "--criterion",
        "fused_label_smoothed_cross_entropy", "--label-smoothing", "0.1", *map(str, more),
    ]  # fmt: skip


def built(given):
    """With all validation pairs as one batch."""
    task, model, criterion, batch = hidden_states.built(given)
    return task, model, criterion, batch(range(len(task.dataset("valid"))))


class WithMaps(torch.nn.Module):
    """A model that returns the attention of a layer, as fairseq's ``transformer_align`` does."""

    def __init__(self, model, layer, heads):
        super().__init__()
        self.model, self.options = model, {"alignment_layer": layer, "alignment_heads": heads}

    def forward(self, src_tokens, src_lengths, prev_output_tokens):
        encoded = self.model.encoder(src_tokens, src_lengths=src_lengths)
        return self.model.decoder(prev_output_tokens, encoder_out=encoded, **self.options)

    def get_normalized_probs(self, *args, **kwargs):
        return self.model.get_normalized_probs(*args, **kwargs)

    def get_targets(self, *args, **kwargs):
        return self.model.get_targets(*args, **kwargs)


@pytest.mark.parametrize("more", [(), ("--decoder-self-attention", "ssru")])
@pytest.mark.parametrize(("layer", "heads"), [(None, 1), (0, 2)])
def test_equals_fairseq(layer, heads, more, data):
    given = (*GUIDED, "--guided-alignment-heads", heads, *more)
    given += () if layer is None else ("--guided-alignment-layer", layer)
    task, model, criterion, sample = built(arguments(data, *given))
    assert len(sample["alignments"]) > 20
    loss, size, logged = criterion(model, sample)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    theirs = LabelSmoothedCrossEntropyCriterionWithAlignment(task, False, 0.1, 0.3)
    last = len(model.decoder.layers) - 1
    wanted, wanted_size, wanted_log = theirs(WithMaps(model, last if layer is None else layer, heads), sample)
    wanted.backward()
    assert size == wanted_size
    torch.testing.assert_close(loss, wanted)
    assert float(logged["guided_alignment_loss"]) == pytest.approx(wanted_log["alignment_loss"], rel=1e-5)
    for name, p in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], p.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_a_batch_without_links_has_the_other_losses_only(data):
    _, model, criterion, sample = built(arguments(data, *GUIDED))
    del sample["alignments"]
    _, _, plain, _ = built(arguments(data))
    torch.testing.assert_close(criterion(model, sample)[0], plain(model, sample)[0])
    assert "guided_alignment_loss" not in criterion(model, sample)[2]


@pytest.mark.parametrize(
    ("given", "message"),
    [(("--guided-alignment-weight", 0.3), "--load-alignments: must be given with --guided-alignment-weight"),
     (("--guided-alignment-layer", 0), "--guided-alignment-layer: requires --guided-alignment-weight"),
     ((*GUIDED, "--guided-alignment-layer", 9), r"--guided-alignment-layer: must be in \[0, 2\), got 9"),
     ((*GUIDED, "--guided-alignment-heads", 9), r"--guided-alignment-heads: must be in \[1, 2\], .*got 9"),
     ((*GUIDED, "--checkpoint-activations"), "--checkpoint-activations: must be off")],
)  # fmt: skip
def test_what_is_refused(given, message, data):
    with pytest.raises(ConfigError, match=message) as found:
        built(arguments(data, *given))
    assert "\n" not in str(found.value)


def test_a_training_learns_the_links(data, tmp_path):
    given = arguments(
        data, "--guided-alignment-weight", 1, "--load-alignments", "--lr", "3e-3", "--max-update", 40, "--save-dir",
        tmp_path, "--disable-validation", "--no-epoch-checkpoints", "--num-workers", 0, "--log-format", "json",
        "--log-interval", 5, "--user-dir", "fairseq_compress",
    )  # fmt: skip
    output = run_command("fairseq-train", *given)
    logged = [
        json.loads(line[line.index("{") :]) for line in output.stdout.splitlines() if '"guided_alignment_loss"' in line
    ]
    losses = [float(entry["guided_alignment_loss"]) for entry in logged if "guided_alignment_loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    assert trained_attention(str(tmp_path / "checkpoint_last.pt")) == (None, 1)
