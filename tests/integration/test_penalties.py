"""Penalties of a model under every criterion: the gradient by hand, accumulated batches, processes, resumption."""

import re

import pytest
import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.logging import metrics
from fairseq.trainer import Trainer

from tests.conftest import ROOT, TINY, run_command, train_in_two_processes
from tests.helpers.dual_corpus import make_folder
from tests.helpers.penalized import WEIGHT, attach

USER_DIR = ROOT / "tests" / "helpers" / "penalized"
LR = 0.125
CRITERIONS = [
    "word_level_kd", "hidden_state_kd", "sequence_level_kd", "fused_label_smoothed_cross_entropy",
    "label_smoothed_cross_entropy", "cross_entropy", "dual_vocab_kd",
]  # fmt: skip
SGD = ["--optimizer", "sgd", "--lr", LR, "--clip-norm", 0, "--dropout", 0, "--update-freq", 2]
DUAL = [
    "--task", "dual_vocab_translation", "--dual-teacher-arch", "transformer_small", "--dual-teacher-options",
    '{"encoder_layers": 1, "decoder_layers": 1, "encoder_embed_dim": 24, "encoder_ffn_embed_dim": 32}',
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("dual"), train=30, valid=12)


def trained(arguments, penalized):
    """Two updates of two batches each in this process: the watched weight after each, what was logged, the task."""
    words = [str(word) for word in arguments]
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    model = task.build_model(cfg.model)
    if penalized:
        attach(model)
        task._give_clock(model)
    criterion = task.build_criterion(cfg.criterion)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    batches = [dataset.collater([dataset[i] for i in rows]) for rows in (range(3), range(3, 7))]
    trainer = Trainer(cfg, task, model, criterion)
    trainer.begin_epoch(1)
    layer = getattr(model, "student", model).encoder.layers[0].fc1
    weights, logs = [layer.weight.detach().clone()], []
    for _ in range(2):
        with metrics.aggregate(new_root=True) as found:
            trainer.train_step(batches)
        weights.append(layer.weight.detach().clone())
        logs.append(found.get_smoothed_values())
    return weights, logs, task, model, batches


@pytest.mark.parametrize("name", CRITERIONS)
def test_the_update_sees_the_penalty_once(name, train_arguments, teacher, folder):
    """The difference to a step without: lr · weight · 2 w, with --update-freq 2, and weight 0 in the first update."""
    base = [*train_arguments, "--arch", "transformer_small", *TINY, "--criterion", name, *SGD]
    if name in ("word_level_kd", "hidden_state_kd"):
        base += ["--teacher-path", teacher]
    if name == "hidden_state_kd":
        base += ["--feature-weight", 0.5]
    if name == "dual_vocab_kd":
        base = [folder, *base[1:], *DUAL]
    plain, _, _, _, _ = trained(base, penalized=False)
    weights, logs, task, model, batches = trained(base, penalized=True)
    assert torch.equal(weights[1], plain[1])
    assert WEIGHT.at(1) == 0.5
    torch.testing.assert_close(weights[2], plain[2] - LR * 0.5 * 2 * plain[1], rtol=1e-4, atol=1e-6)
    for log, weight in zip(logs, weights, strict=False):
        assert log["toy_penalty"] == pytest.approx(weight.square().sum().item(), rel=1e-3)
    clock = getattr(model, "student", model).toy.clock
    assert clock is task.clock
    assert (clock.update, clock.epoch, clock.counts) == (1, 1, True)
    assert clock.tokens == 2 * sum(batch["ntokens"] for batch in batches)


def test_two_processes_and_a_resumption(train_arguments, tmp_path):
    """Two processes are one that accumulates; a stopped training resumes bit-equal, its tokens counted on."""
    base = [*train_arguments, "--arch", "transformer_small", *TINY, "--criterion", "label_smoothed_cross_entropy"]
    base[base.index("--user-dir") + 1] = str(USER_DIR)
    base.remove("--no-last-checkpoints")
    base += ["--optimizer", "sgd", "--lr", LR, "--dropout", 0, "--clip-norm", 0, "--ddp-backend", "legacy_ddp"]
    states = {}
    for name, extra, stops in (("one", ["--update-freq", 2], [4]), ("resumed", ["--update-freq", 2], [2, 4])):
        for updates in stops:
            log = run_command("fairseq-train", *base, *extra, "--max-update", updates, "--save-dir", tmp_path / name)
        assert float(re.findall(r"[ |]toy_penalty[= ]([\d.]+)", log.stdout)[-1]) > 0
    train_in_two_processes(*base, "--max-update", 4, "--save-dir", tmp_path / "two")
    for name in ("one", "resumed", "two"):
        states[name] = torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False)
    tokens = {name: state["task_state"]["tokens"] for name, state in states.items()}
    assert tokens["one"] == tokens["resumed"] == tokens["two"] > 0
    for key, weight in states["one"]["model"].items():
        assert torch.equal(weight, states["resumed"]["model"][key]), key
        torch.testing.assert_close(states["two"]["model"][key], weight, rtol=1e-4, atol=1e-5, msg=key)
