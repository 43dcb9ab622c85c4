"""Factors of the learning rate: groups of fairseq's optimizers, through schedulers, --fp16 and checkpoints."""

import copy
from types import SimpleNamespace

import fairseq  # noqa: F401 - before the plugin, which is registered then
import pytest
import torch
from fairseq import optim, options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.optim.lr_scheduler import build_lr_scheduler
from fairseq.trainer import Trainer

import fairseq_compress
from fairseq_compress.compat import set_rate_factors
from fairseq_compress.compat.learning_rates import LearningRates, drop_frozen_gradients
from fairseq_compress.errors import ConfigError
from tests.helpers.optimizers import OPTIMIZERS

fairseq_compress.register()


def config(folder, *given):
    words = [str(folder), "--arch", "transformer", *map(str, given)]
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))


def make(cfg, dtype=torch.float32, **factors):
    """Five parameters, an optimizer and the rates: ``w1=0.25`` gives the second a factor."""
    torch.manual_seed(1)
    weights = [torch.nn.Parameter(torch.randn(3, 4).to(dtype)) for _ in range(5)]
    rates = LearningRates()
    for name, factor in factors.items():
        rates.group(name, [weights[int(name[1:])]], lambda update, factor=factor: factor)
    if dtype is torch.float32:
        optimizer = optim.build_optimizer(cfg.optimizer, weights)
    else:
        optimizer = optim.FP16Optimizer.build_optimizer(cfg, weights)
    set_rate_factors(optimizer, rates.factors(0))
    optimizer.set_lr(0.1)
    return weights, optimizer


def step(weights, optimizer, count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    trainer = SimpleNamespace(optimizer=optimizer, is_fsdp=False)
    for _ in range(count):
        optimizer.zero_grad()
        optimizer.backward(
            sum((weight.float() * torch.randn(weight.shape, generator=draw)).sum() for weight in weights)
        )
        Trainer.clip_grad_norm(trainer, 0.0)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_factor_is_that_part_of_each_step(name, tmp_path):
    """The oracle: a step with the whole learning rate, of which the parameter then goes a quarter."""
    cfg = config(tmp_path, "--optimizer", name, "--lr", "0.1", *OPTIMIZERS[name])
    grouped, optimizer = make(cfg, w1=0.25, w3=0.25)
    step(grouped, optimizer, 3)
    plain, optimizer = make(cfg)
    for number in range(3):
        old = [weight.detach().clone() for weight in plain]
        draw = torch.Generator().manual_seed(0)
        for _ in range(number + 1):
            gradients = [torch.randn(weight.shape, generator=draw) for weight in plain]
        for weight, gradient in zip(plain, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
        with torch.no_grad():
            for place in (1, 3):
                plain[place].copy_(torch.lerp(old[place], plain[place], 0.25))
    for one, other in zip(grouped, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_frozen_parameter_has_no_norm_no_moments_and_no_weight_decay(tmp_path):
    weights, optimizer = make(config(tmp_path, "--optimizer", "adam", "--weight-decay", "0.1"), w1=0.0, w2=0.5)
    before = weights[1].detach().clone()
    for weight in weights:
        weight.grad = torch.full_like(weight, 3.0)
    norm = Trainer.clip_grad_norm(SimpleNamespace(optimizer=optimizer, is_fsdp=False), 1.0)
    assert norm.item() == pytest.approx(3.0 * (4 * 12) ** 0.5)
    assert weights[1].grad is None
    optimizer.step()
    assert torch.equal(weights[1], before)
    assert weights[1] not in optimizer.optimizer.state
    assert len(optimizer.optimizer.state) == 4


SCHEDULERS = {
    "inverse_sqrt": ["--warmup-updates", 2],
    "polynomial_decay": ["--warmup-updates", 2, "--total-num-update", 9],
    "fixed": [],
    "cosine": ["--lr-period-updates", 4],
    "tri_stage": ["--max-update", 9, "--phase-ratio", "(0.3,0.3,0.4)"],
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_know_nothing_of_factors(scheduler, tmp_path):
    """The learning rate that they set, get and log is the one without; that of the group has the factor."""
    cfg = config(tmp_path, "--optimizer", "adam", "--lr", "0.1", "--lr-scheduler", scheduler, *SCHEDULERS[scheduler])
    (_, plain), (_, grouped) = make(cfg), make(cfg, w0=0.25, w4=0.0)
    rates = [build_lr_scheduler(cfg.lr_scheduler, optimizer) for optimizer in (plain, grouped)]
    for update in range(1, 8):
        one, other = (each.step_update(update) for each in rates)
        assert one == other == grouped.get_lr() == plain.get_lr()
        found = {group["lr_group"]: group["lr"] for group in grouped.param_groups}
        assert [found[name] / one for name in found] == pytest.approx([0.25, 1.0, 0.0])


@pytest.mark.parametrize(
    ("first", "second"), [({}, {"w1": 0.5, "w3": 0.0}), ({"w1": 0.5}, {}), ({"w0": 0.5}, {"w4": 0.2})]
)
def test_checkpoints_hold_one_group(first, second, tmp_path):
    """So any training resumes from any other, with the same moments; also from checkpoints without any groups."""
    cfg = config(tmp_path, "--optimizer", "adam", "--lr", "0.1")
    weights, optimizer = make(cfg, **first)
    step(weights, optimizer, 2)
    state = optimizer.state_dict()
    assert [group["params"] for group in state["param_groups"]] == [[0, 1, 2, 3, 4]]
    assert state["param_groups"][0].keys() == make(cfg)[1].state_dict()["param_groups"][0].keys()
    others, resumed = make(cfg, **second)
    factors = [group.get("lr_factor") for group in resumed.param_groups]
    resumed.load_state_dict(state)
    assert [group.get("lr_factor") for group in resumed.param_groups] == factors
    for weight, other in zip(weights, others, strict=True):
        for name, value in optimizer.optimizer.state[weight].items():
            found = resumed.optimizer.state[other][name]
            assert torch.equal(found, value) if torch.is_tensor(value) else found == value


def test_copies_in_float32_keep_the_groups(tmp_path):
    """--fp16 with --fp16-no-flatten-grads: a frozen parameter and its copy, a slow one, and a resumption bit by bit."""
    cfg = config(tmp_path, "--optimizer", "adam", "--lr", "0.1", "--fp16", "--fp16-no-flatten-grads",
                 "--fp16-init-scale", 4)  # fmt: skip
    weights, optimizer = make(cfg, torch.float16, w1=0.0, w2=0.25)
    before = [weight.detach().clone() for weight in weights]
    step(weights, optimizer, 1)
    moved = [(weight - old).float().abs() for weight, old in zip(weights, before, strict=True)]
    assert moved[0].mean().item() == pytest.approx(0.1, rel=1e-2)
    assert moved[1].max() == 0
    assert moved[2].mean().item() == pytest.approx(0.025, rel=2e-2)
    assert optimizer.fp32_params[1] not in optimizer.optimizer.state
    again, resumed = make(cfg, torch.float16, w1=0.0, w2=0.25)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for own, other in zip(resumed.fp32_params, optimizer.fp32_params, strict=True):
        own.data.copy_(other.data)
    for one, two in ((weights, optimizer), (again, resumed)):
        step(one, two, 2, seed=5)
    assert all(torch.equal(one, two) for one, two in zip(weights, again, strict=True))


def test_what_cannot_have_groups(tmp_path):
    weights, optimizer = make(config(tmp_path, "--optimizer", "adam"))
    with pytest.raises(ConfigError, match="--fp16-no-flatten-grads: must be given with --fp16"):
        set_rate_factors(optimizer, {"w7": 0.5})
    drop_frozen_gradients(optimizer)
    rates = LearningRates()
    rates.group("slow", weights[:1], lambda update: 0.5)
    with pytest.raises(ConfigError, match="--optimizer: must be a single one where parts of a model have rates"):
        optim.build_optimizer(SimpleNamespace(_name="composite"), weights)


def test_rates_by_the_number_of_the_update():
    rates = LearningRates()
    assert not rates
    rates.begin_with(3, lambda update: update / 4)
    rates.group("a", [], lambda update: 0.5**update)
    assert rates
    assert [rates.scheduled(update) for update in (0, 2, 3, 5)] == [(0, 0.0), (0, 0.5), (0, None), (2, None)]
    assert rates.factors(2) == {"a": 0.25}
