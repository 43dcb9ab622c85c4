"""Learning from hidden states: the criterion in this process."""

import math
import re

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from fairseq_compress.compat import RATE_GROUP
from fairseq_compress.criterions.terms.term import Batch
from fairseq_compress.errors import ConfigError
from tests.conftest import run_command
from tests.helpers.hidden_states import CONVOLUTION, FOUR_HEADS, INSIDE, LAYERS, NARROW, TERMS, arguments, built, start


def rates(task, model, update):
    """The factors of the learning rate that are not 1."""
    factors = task.learning_rates.factors(update)
    named = {p: factors.get(getattr(p, "param_group", "").removeprefix(RATE_GROUP), 1.0) for p in model.parameters()}
    return {parameter: factor for parameter, factor in named.items() if factor != 1.0}


def gradients(model, criterion):
    named = [*model.named_parameters(), *((f"maps.{name}", p) for name, p in criterion.maps.named_parameters())]
    return {name: None if p.grad is None else p.grad.clone() for name, p in named}


SHAPES = {
    "equal": INSIDE,
    "narrow": [*INSIDE, *NARROW, *FOUR_HEADS],
    "convolution": [*INSIDE, *CONVOLUTION, *FOUR_HEADS, "--encoder-layers", "1"],
    "stock": [*INSIDE, *NARROW, "--arch", "transformer"],
    "joint": [*INSIDE, *NARROW, "--transfer", "joint", "--transfer-updates", "1"],
}


def shaped(train_arguments, teacher, shape):
    extra = start(teacher, "--init-widths", "svd") if shape == "joint" else []
    return arguments(train_arguments, teacher, *SHAPES[shape], *extra)


@pytest.mark.parametrize("shape", SHAPES)
def test_any_cut_of_the_batch_gives_the_same_sums(shape, train_arguments, teacher):
    """Sentences of many lengths, all in one batch with padding, or in three: losses, gradients, and the teacher."""
    _, model, criterion, batch = built(shaped(train_arguments, teacher, shape))
    frozen = {name: weight.clone() for name, weight in criterion.layers.teacher.models[0].state_dict().items()}
    model.train(), criterion.train()
    found = []
    for cuts in ([range(9)], [range(4), range(4, 5), range(5, 9)]):
        model.zero_grad(), criterion.zero_grad()
        logs = []
        for cut in cuts:
            loss, _, log = criterion(model, batch(cut))
            loss.backward()
            logs.append(log)
        sums = {key: sum(float(log[key]) for log in logs) for key in logs[0]}
        found.append((sums, gradients(model, criterion)))
    (whole, whole_gradients), (cut, cut_gradients) = found
    assert {f"{term}_loss" for term in TERMS} - whole.keys() == ({"cosine_loss"} if shape == "joint" else set())
    assert all(math.isfinite(value) and value > 0 for value in whole.values())
    assert cut == pytest.approx(whole, rel=1e-4)
    for name, gradient in whole_gradients.items():
        assert gradient is not None, name
        torch.testing.assert_close(cut_gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=name)
    assert not any(p.requires_grad or p.grad is not None for p in criterion.layers.teacher.models[0].parameters())
    for name, weight in criterion.layers.teacher.models[0].state_dict().items():
        assert torch.equal(weight, frozen[name]), name
    assert not any(module._forward_hooks for module in model.modules())


def test_the_loss_is_the_weighted_sum(train_arguments, teacher):
    task, model, criterion, batch = built(
        arguments(train_arguments, teacher, *INSIDE, "--gold-weight", 0.3, "--kd-weight", 0.9, "--attention-decay", 0.5)
    )
    task.clock.epoch = 3
    loss, _, log = criterion(model.eval(), batch(range(5)))
    weights = dict(zip(("gold", "kd", *TERMS), (0.3, 0.9, 0.4, 0.7, 0.2, 0.3, 0.6 / 4), strict=True))
    assert loss.item() == pytest.approx(
        sum(weight * float(log[f"{t}_loss"]) for t, weight in weights.items()), rel=1e-5
    )


def test_the_teacher_itself_has_nothing_to_learn(train_arguments, teacher):
    """A student with its teacher's weights: every loss inside is 0, also where heads are aligned by the identity."""
    for extra in (INSIDE, [*INSIDE, *CONVOLUTION]):
        _, model, criterion, batch = built(arguments(train_arguments, teacher, *extra))
        model.load_state_dict(torch.load(teacher, weights_only=False)["model"])
        for convolution in criterion.maps.heads.values():
            torch.nn.init.eye_(convolution.weight.data[:, :, 0, 0])
        _, _, log = criterion(model.eval(), batch(range(5)))
        assert [float(log[f"{term}_loss"]) for term in TERMS] == pytest.approx([0.0] * 5, abs=2e-4)


def test_aligned_maps_are_the_encoders_and_the_mean_of_the_decoders(train_arguments, teacher):
    """As in the official code; one sentence at a time, whose loss its divergence over all entries of its maps is."""
    logs = {}
    for kinds in ("encoder,decoder,cross", "encoder", "decoder", "cross"):
        shape = ["--attention-weight", 1, *CONVOLUTION, *FOUR_HEADS, "--attention-kinds", kinds]
        _, model, criterion, batch = built(arguments(train_arguments, teacher, *shape))
        for convolution in criterion.maps.heads.values():
            torch.nn.init.normal_(convolution.weight, generator=torch.Generator().manual_seed(1))
        logs[kinds] = criterion(model.eval(), batch(range(5)))[2]["attention_loss"].item()
    assert len(set(logs.values())) == 4
    encoder, decoder, cross = (logs[kind] for kind in ("encoder", "decoder", "cross"))
    assert logs["encoder,decoder,cross"] == pytest.approx(encoder + (decoder + cross) / 2, rel=1e-5)


def test_words_from_a_cache_and_hidden_states_from_the_teacher(train_arguments, teacher, data_bin, tmp_path):
    """The same terms as with the live teacher, whose output layer then does not run."""
    cache = tmp_path / "cache"
    run_command("fairseq-compress", "cache-teacher", "--checkpoint", teacher, "--data", data_bin, "--output", cache)
    _, model, live, batch = built(arguments(train_arguments, teacher, *INSIDE, *NARROW))
    _, _, cached, _ = built(arguments(train_arguments, teacher, *INSIDE, *NARROW, "--teacher-cache", cache))
    cached.maps.load_state_dict(live.maps.state_dict())
    logs = [criterion(model.train(), batch(range(5)))[2] for criterion in (live, cached)]
    for term in TERMS:
        assert float(logs[0][f"{term}_loss"]) == float(logs[1][f"{term}_loss"]) > 0
    assert cached.terms[0].teachers is None
    alone = arguments(train_arguments, "", *INSIDE, "--teacher-cache", cache)
    with pytest.raises(ConfigError, match="--teacher-path: must name the teacher next to --teacher-cache"):
        built(alone)


def test_the_pairs_are_those_of_the_map(train_arguments, teacher):
    """The one mapped layer is the only one that gets a gradient from features, and through it what is below."""
    only = ["--feature-weight", 1, "--gold-weight", 0, "--kd-weight", 0]
    _, model, criterion, batch = built(
        arguments(train_arguments, teacher, *only, "--layer-map", "encoder:1,- decoder:-")
    )
    criterion.train()(model.train(), batch(range(5)))[0].backward()
    largest = {name: p.grad.abs().max().item() for name, p in model.named_parameters()}
    assert largest["encoder.layers.0.fc1.weight"] > 0
    assert {value for name, value in largest.items() if name.startswith(("encoder.layers.1", "decoder.layers"))} == {
        0.0
    }


def test_evaluation_shows_all_terms_and_the_last_objective(train_arguments, teacher):
    _, model, criterion, batch = built(shaped(train_arguments, teacher, "joint"))
    assert criterion.train().terms[0].weights(Batch(model, {}, True, criterion.layers.transfer.at(0))) == (0.0, 0.0)
    loss, _, log = criterion.eval()(model.eval(), batch(range(5)))
    assert {f"{term}_loss" for term in TERMS} <= log.keys()
    want = 0.5 * log["gold_loss"] + 0.5 * log["kd_loss"] + 0.4 * log["cosine_loss"]
    assert loss.item() == pytest.approx(float(want), rel=1e-5)


STAGES = ["--transfer", "progressive", "--transfer-updates", 8, "--transfer-lower-lr", 0.25, "--decoder-layers", 2]


def test_a_stage_moves_its_layer_and_what_is_below_less(train_arguments, teacher):
    """Nothing moves outside of layers, and no layer before its stage; weights after the layer phase all do."""
    task, model, *_ = built(arguments(train_arguments, teacher, *LAYERS, *STAGES, *start(teacher)))
    names = {parameter: name for name, parameter in model.named_parameters()}
    layers = ["encoder.layers.0", "encoder.layers.1", "decoder.layers.0", "decoder.layers.1"]
    for update, stage in ((0, 0), (1, 0), (2, 1), (4, 2), (7, 3), (8, None)):
        found = {names[parameter]: rate for parameter, rate in rates(task, model, update).items()}
        for name in names.values():
            layer = re.sub(r"(layers\.\d+)\..*", r"\1", name)
            number = layers.index(layer) if layer in layers else 9
            want = 1.0 if stage is None or number == stage else 0.25 if number < stage else 0.0
            assert found.get(name, 1.0) == want, (update, name)


def test_joint_transfer_moves_all_mapped_layers_and_nothing_else(train_arguments, teacher):
    joint = ["--transfer", "joint", "--transfer-updates", 2, "--layer-map", "encoder:1,- decoder:-"]
    task, model, *_ = built(arguments(train_arguments, teacher, *LAYERS, *joint, *start(teacher)))
    found = rates(task, model, 0)
    moving = {name for name, parameter in model.named_parameters() if parameter not in found}
    assert moving == {f"encoder.layers.0.{name}" for name, _ in model.encoder.layers[0].named_parameters()}
    assert set(found.values()) == {0.0}


@pytest.mark.parametrize("terms", [[], ["--attention-weight", 0.6]])
def test_stages_add_up_to_the_joint_loss(terms, train_arguments, teacher):
    """As in MobileBERT's code, the loss of a stage is divided by the number of layers."""
    found = []
    for transfer in ("progressive", "joint"):
        given = [*LAYERS, *STAGES, *terms, *start(teacher), "--transfer", transfer]
        given += [] if transfer == "progressive" else ["--transfer-lower-lr", 0.1]
        task, model, criterion, batch = built(arguments(train_arguments, teacher, *given))
        model.train(), criterion.train()
        losses = []
        for task.clock.update in (0, 2, 4, 6) if transfer == "progressive" else (0,):
            losses.append(criterion(model, batch(range(5)))[0].item())
        assert min(losses) > 0
        found.append(sum(losses))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("arch", ["transformer_small", "transformer"])
def test_a_layer_phase_has_no_dropout(arch, train_arguments, teacher):
    given = [*LAYERS, "--arch", arch, "--transfer", "joint", "--transfer-updates", 2, *start(teacher)]
    dropout = ["--dropout", 0.3, "--attention-dropout", 0.3, "--activation-dropout", 0.3]
    task, model, criterion, batch = built(arguments(train_arguments, teacher, *given, *dropout))
    for update, same in ((0, True), (1, True), (2, False)):
        task.clock.update = update
        logs = []
        for seed in (1, 2):
            model.train(), criterion.train()
            torch.manual_seed(seed)
            generator = torch.get_rng_state()
            logs.append({k: float(v) for k, v in criterion(model, batch(range(5)))[2].items()})
            assert torch.equal(generator, torch.get_rng_state()) == same
        assert (logs[0] == logs[1]) == same
        assert model.encoder.layers[0].training


def test_ddp_gets_every_gradient(train_arguments, teacher, tmp_path):
    """torch's own DDP around model and criterion: it refuses the second step if a parameter had none in the first."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for shape in ("convolution", "joint"):
            task, model, criterion, batch = built(shaped(train_arguments, teacher, shape))
            wrapped_model, wrapped = DistributedDataParallel(model), DistributedDataParallel(criterion)
            for update in range(3):
                task.clock.update = update
                wrapped(wrapped_model, batch(range(5)))[0].backward()
    finally:
        torch.distributed.destroy_process_group()


def test_low_precision(train_arguments, teacher):
    """Under autocast, and with weights in bfloat16; stages are refused there."""
    _, model, criterion, batch = built(shaped(train_arguments, teacher, "narrow"))
    with torch.autocast("cpu", torch.bfloat16):
        low = criterion(model, batch(range(5)))
    high = criterion(model, batch(range(5)))
    assert low[0].dtype == torch.float32
    assert low[0].item() == pytest.approx(high[0].item(), rel=0.02)
    loss = criterion.bfloat16()(model.bfloat16(), batch(range(5)))[0]
    loss.backward()
    assert loss.item() == pytest.approx(high[0].item(), rel=0.05)
    for kind in ("joint", "progressive"):
        stages = ["--transfer", kind, "--transfer-updates", 3, *start(teacher)]
        _, model, criterion, batch = built(arguments(train_arguments, teacher, *LAYERS, *stages))
        with pytest.raises(ConfigError, match=f"--transfer {kind}: requires weights in float32"):
            criterion(model.bfloat16(), batch(range(5)))


def test_every_bad_option_is_in_one_line(train_arguments, teacher, tmp_path):
    bad = [
        "--teacher-path", f"{teacher}:{teacher}", "--kd-alpha", 0.7, "--feature-weight", -1, "--cosine-weight", 1,
        "--attention-decay", 2, "--attention-kinds", "cross,self", "--layer-map", "encoder:1", "--transfer-updates", 3,
        "--transfer-lower-lr", 0.5, "--kd-iterations", 2, "--encoder-layerdrop", 0.1,
    ]  # fmt: skip
    line = refused(arguments(train_arguments, teacher, *bad), tmp_path)
    for message in (
        "--kd-alpha: use --gold-weight and --kd-weight here, got 0.7",
        "--feature-weight: must be in [0, inf), got -1.0",
        "--attention-decay: must be in (0, 1], got 2.0",
        "--attention-decay: requires --attention-weight, got 2.0 alone",
        "--attention-kinds: must be some of encoder,decoder,cross, each once, got 'cross,self'",
        "--layer-map: must be as in 'encoder:1,3,5 decoder:2,-', with both parts, got 'encoder:1'",
        "--transfer-updates: requires --transfer joint or progressive, got auxiliary",
        "--transfer-lower-lr: requires --transfer progressive, got auxiliary",
        "--teacher-path: must name one teacher to learn hidden states from, got 2",
        "--kd-iterations: must be 1 where hidden states are learned, got 2",
        "--encoder-layerdrop: must be 0 where hidden states are learned, got 0.1",
    ):
        assert message in line


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["--gold-weight", 0, "--kd-weight", 0], "--gold-weight, --kd-weight, --cosine-weight, .* must not all be 0"),
        ([*LAYERS, "--layer-map", "encoder:0,5 decoder:1"], "layers 0 to 1 of the teacher's encoder, got 5; .* got 1"),
        ([*LAYERS, "--layer-map", "encoder:0 decoder:0"], "must name 2 layers of the encoder, .* got 1"),
        ([*LAYERS, "--layer-map", "encoder:-,- decoder:-"], "--layer-map: must map a layer"),
        (["--layer-map", "encoder:0,1 decoder:0"], "--layer-map: requires weights above 0"),
        (
            [*LAYERS, "--transfer", "progressive", "--transfer-updates", 2, "--init-from-teacher"],
            "--transfer-updates: must be at least 3",
        ),
        (
            [*LAYERS, "--transfer", "joint", "--transfer-updates", 2],
            "--transfer joint: requires the teacher's embeddings, which the layer phase does not train: "
            "--init-from-teacher TEACHER, .* got encoder.embed_tokens.weight, decoder.embed_tokens.weight initialized",
        ),
        ([*LAYERS, "--transfer", "joint"], "--transfer-updates: must be at least 1 with --transfer joint, got 0"),
        (["--transfer", "joint", "--transfer-updates", 2], "--transfer joint: needs the weight of a loss of layers"),
        (
            ["--attention-weight", 1, *CONVOLUTION, "--transfer", "progressive", "--transfer-updates", 9],
            "--attention-head-map: must be group with --transfer progressive",
        ),
        (
            ["--attention-weight", 1, "--transfer", "progressive", "--transfer-updates", 9],
            "--transfer progressive: needs a weight of features above 0, .* got --attention-weight alone",
        ),
        (
            [*LAYERS, "--attention-weight", 1, "--attention-kinds", "cross", "--layer-map", "encoder:0,1 decoder:-"],
            "--layer-map: must map a layer of the decoder with cross among --attention-kinds",
        ),
        (["--attention-weight", 1, "--checkpoint-activations"], "--checkpoint-activations: must be off"),
        (
            ["--attention-weight", 1, "--encoder-embed-dim", 18, "--encoder-attention-heads", 3, "--decoder-embed-dim",
             18, "--decoder-attention-heads", 3],
            "encoder attention must have a multiple or a divisor of the student's 3 heads, got 2",
        ),
        (["--cosine-weight", 1, "--task", "translation"], "--task: must be compressed_translation"),
        (["--cosine-weight", 1, "--teacher-dropout-passes", 2], "--teacher-dropout-passes: must be 0 where"),
    ],
)  # fmt: skip
def test_what_does_not_fit(bad, message, train_arguments, teacher):
    given = arguments(train_arguments, teacher, *bad)
    with pytest.raises(ConfigError, match=message):
        built([*given, str(teacher)] if given[-1] == "--init-from-teacher" else given)


def refused(given, tmp_path):
    result = run_command("fairseq-train", *given, "--save-dir", tmp_path, check=False)
    assert result.returncode == 1, result.stdout
    assert "begin training" not in result.stdout
    assert "Traceback" not in result.stdout
    return result.stdout.splitlines()[-1]
