"""What word_level_kd learns from: selected tokens, its own prefixes and samples, teachers with dropout."""

import argparse
import math
from types import SimpleNamespace

import fairseq  # noqa: F401 - before the plugin, which is registered then
import pytest
import torch
from fairseq import models
from fairseq.data import Dictionary

from fairseq_compress.criterions.on_policy import EXTRA_LENGTH, coin, student_samples
from fairseq_compress.criterions.selective_kd import QUEUE
from fairseq_compress.criterions.terms import word_level
from fairseq_compress.criterions.word_level_kd import WordLevelKDConfig, WordLevelKDCriterion
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.draws import seed_of
from fairseq_compress.functional.losses.divergences import ranking_loss
from fairseq_compress.functional.losses.predictions import hardest, pushed
from fairseq_compress.models.student_output import encoding_once
from fairseq_compress.tasks.compressed_translation import CompressedTranslationConfig, CompressedTranslationTask
from fairseq_compress.teachers.frozen import FrozenTeachers, dropout_modules
from fairseq_compress.weights.attach import attach_plan
from fairseq_compress.weights.reading import parse_plan

PAD, EOS = 1, 2
DICTIONARY = Dictionary()
for number in range(16):
    DICTIONARY.add_symbol(f"w{number}")


def make_model(seed, dropout=0.0):
    small = {
        "encoder_layers": 1, "decoder_layers": 2, "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "share_all_embeddings": True, "dropout": dropout,
    }  # fmt: skip
    torch.manual_seed(seed)
    task = SimpleNamespace(source_dictionary=DICTIONARY, target_dictionary=DICTIONARY)
    model = models.build_model(argparse.Namespace(arch="transformer_small", criterion="any", **small), task).double()
    with torch.no_grad():  # far from uniform
        model.decoder.embed_tokens.weight *= 4
    return model


def make_sample():
    source = torch.tensor([[5, 6, 7, EOS], [PAD, 8, 9, EOS]])
    target = torch.tensor([[10, 11, 12, 13, EOS], [14, 15, EOS, PAD, PAD]])
    previous = torch.tensor([[EOS, 10, 11, 12, 13], [EOS, 14, 15, PAD, PAD]])
    net_input = {"src_tokens": source, "src_lengths": torch.tensor([4, 3]), "prev_output_tokens": previous}
    return {"net_input": net_input, "target": target, "ntokens": 8}


@pytest.fixture
def make(monkeypatch):
    """A criterion with real teachers that come from no file."""

    def build(*teachers, **options):
        frozen = FrozenTeachers.__new__(FrozenTeachers)
        frozen.models = [teacher.eval().requires_grad_(False) for teacher in teachers]
        monkeypatch.setattr(word_level, "FrozenTeachers", lambda *_: frozen)
        task = CompressedTranslationTask(
            CompressedTranslationConfig(source_lang="en", target_lang="cs"), *[DICTIONARY] * 2
        )
        cfg = WordLevelKDConfig(**({"teacher_path": "t.pt", "sentence_avg": False} | options))
        return WordLevelKDCriterion(cfg, task).train()

    return build


def log_probs(model, net_input):
    return torch.log_softmax(model(**net_input)[0], dim=-1)


def test_the_hardest_tokens():
    nll, kept = torch.tensor([3.0, 9.0, 1.0, 3.0, 2.0, 5.0]), torch.tensor([1, 0, 1, 1, 1, 1], dtype=torch.bool)
    assert hardest(nll, kept, 0.5).tolist() == [True, False, False, True, False, True]  # ⌈2.5⌉ are 5, 3 and its equal
    assert hardest(nll, kept, 0.2).tolist() == [False, False, False, False, False, True]
    assert hardest(nll, kept, 0.1).sum() == 1
    assert not hardest(nll, torch.zeros_like(kept), 0.5).any()


def test_the_queue():
    queue = pushed(torch.zeros(0), torch.tensor([1.0, 2.0, 3.0]), 4)
    queue = pushed(queue, torch.tensor([4.0, 5.0]), 4)
    assert queue.tolist() == [2, 3, 4, 5]
    nll, kept = torch.tensor([3.9, 4.0, 9.0, 0.0]), torch.tensor([1, 1, 0, 1], dtype=torch.bool)
    assert hardest(nll, kept, 0.5, queue).tolist() == [False, True, False, False]
    assert hardest(nll, kept, 0.7, queue).tolist() == [True, True, False, False]  # ⌈2.8⌉ = 3 of 4: from 3 on
    assert hardest(nll, kept, 0.5, torch.zeros(0)).tolist() == kept.tolist()


@pytest.mark.parametrize("kind", ["batch", "queue"])
def test_only_selected_tokens_are_distilled(kind, make):
    student, teacher, sample = make_model(1), make_model(2), make_sample()
    criterion = make(teacher, selective_kd=kind, kd_alpha=0.25, kd_temperature=2.0)
    target, net_input = sample["target"], sample["net_input"]
    log_p, kept = log_probs(student, net_input), target.ne(PAD)
    nll = -log_p.gather(2, target[..., None]).squeeze(2)
    selected = (nll >= nll[kept].sort(descending=True).values[3]) & kept  # 4 of 8; the queue is this batch
    log_s, log_t = (torch.log_softmax(model(**net_input)[0] / 2.0, dim=-1) for model in (student, teacher))
    kl = (log_t.exp() * (log_t - log_s)).sum(-1)
    loss, size, log = criterion(student, sample)
    assert criterion.eval()(student, sample)[2]["kd_loss"].item() == pytest.approx(kl[kept].sum().item())
    assert selected.sum() == 4
    assert size == 8
    assert loss.item() == pytest.approx((0.25 * nll[kept].sum() + 0.75 * 4.0 * kl[selected].sum()).item())
    assert log["kd_loss"].item() == pytest.approx(kl[selected].sum().item())


def test_the_queue_is_state_of_the_task_and_only_training_fills_it(make):
    student, sample = make_model(1), make_sample()
    criterion = make(make_model(2), selective_kd="queue", selective_kd_queue=12)
    state = criterion.task.state
    criterion(student, sample)
    first = state.state_dict[QUEUE].clone()
    assert len(first) == 8
    criterion.eval()(student, sample)
    criterion.train().task.clock.counts = False
    criterion(student, sample)
    assert torch.equal(state.state_dict[QUEUE], first)
    criterion.task.clock.counts = True
    criterion(student, sample)
    assert torch.equal(state.state_dict[QUEUE], torch.cat([first, first])[-12:])


def test_one_encoding_serves_all_passes():
    """Values and gradients are those of two whole passes; afterwards the encoder is as it was."""
    model, net_input, calls = make_model(3), make_sample()["net_input"], []
    model.encoder.layers[0].register_forward_hook(lambda *_: calls.append(1))
    gradients = []
    for once in (True, False):
        model.zero_grad()
        calls.clear()
        with encoding_once([model] if once else []):
            first = log_probs(model, net_input)
            second = log_probs(model, net_input | {"prev_output_tokens": net_input["prev_output_tokens"].roll(1, 0)})
        (first[0, 0, 5] + second[0, 1, 6]).backward()
        assert len(calls) == (1 if once else 2)
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)
    with pytest.raises(ZeroDivisionError), encoding_once([model]):
        _ = 1 / 0
    assert "forward" not in vars(model.encoder)


@pytest.mark.parametrize("passes", [2, 3])
def test_iterations_feed_the_students_best_words_back(passes, make):
    student, teacher, sample = make_model(1), make_model(2), make_sample()
    criterion = make(teacher, kd_iterations=passes, kd_ranking=5, kd_alpha=0.5)
    loss, _, log = criterion(student, sample)
    target = sample["target"]
    kept, net_input, kd = target.ne(PAD), dict(sample["net_input"]), []
    nll = -log_probs(student, net_input).gather(2, target[..., None]).squeeze(2)[kept].sum()
    for _ in range(passes):
        log_s, log_t = log_probs(student, net_input), log_probs(teacher, net_input)
        kl = (log_t.exp() * (log_t - log_s)).sum(-1)[kept].sum()
        kd.append(kl + ranking_loss(log_t.exp()[kept], log_s.exp()[kept], 5).loss.sum())
        best = log_s.argmax(-1)
        net_input["prev_output_tokens"] = torch.cat([torch.full((2, 1), EOS), best[:, :-1]], dim=1)
    assert len({round(value.item(), 6) for value in kd}) == passes
    assert loss.item() == pytest.approx((0.5 * nll + 0.5 * sum(kd) / passes).item())
    assert log["kd_loss"].item() == pytest.approx((sum(kd) / passes).item())
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert criterion.eval()(student, sample)[2]["kd_loss"].item() == pytest.approx(kd[0].item())


def test_samples_follow_the_student():
    """The first words of many samples have the student's probabilities, within four standard deviations."""
    model, sample = make_model(4, dropout=0.3).train(), make_sample()
    row = {key: value[:1].expand(4000, *value.shape[1:]) for key, value in sample["net_input"].items()}
    many = {"net_input": row, "target": sample["target"][:1].expand(4000, -1), "ntokens": 20000}
    task = CompressedTranslationTask(CompressedTranslationConfig(), DICTIONARY, DICTIONARY)
    before = torch.get_rng_state()
    drawn = student_samples(model, task, many, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    p = log_probs(model.eval(), {key: value[:1] for key, value in row.items()})[0, 0].exp()
    p[[PAD, EOS]] = 0  # no padding, and no empty translation
    p = (p / p.sum()).detach()
    counts = torch.bincount(drawn["target"][:, 0], minlength=len(p)) / 4000
    for share, probability in zip(counts.tolist(), p.tolist(), strict=True):
        assert share == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / 4000))
    target, previous = drawn["target"], drawn["net_input"]["prev_output_tokens"]
    assert target.size(1) <= sample["target"].size(1) + EXTRA_LENGTH
    assert drawn["ntokens"] == target.ne(PAD).sum()
    assert target.eq(EOS).sum(1).eq(1).all()
    for words, prefix in zip(target[:50].tolist(), previous[:50].tolist(), strict=True):
        length = words.index(EOS) + 1
        assert prefix[:length] == [EOS, *words[: length - 1]]
    assert torch.equal(student_samples(model, task, many, seed=7)["target"], target)
    assert not torch.equal(student_samples(model, task, many, seed=8)["target"], target)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_on_policy(alpha, make):
    """α of the references, and the teacher's divergence on samples, scaled to the references' number of tokens."""
    student, teacher, sample = make_model(1), make_model(2), make_sample()
    criterion = make(teacher, on_policy_fraction=1.0, kd_divergence="reverse_kl", kd_alpha=alpha)
    torch.manual_seed(11)
    loss, size, log = criterion(student, sample)
    drawn = student_samples(student, criterion.task, sample, seed_of("word_level_kd", 11, 1))
    kept = drawn["target"].ne(PAD)
    log_s, log_t = log_probs(student, drawn["net_input"]), log_probs(teacher, drawn["net_input"])
    kd = (log_s.exp() * (log_s - log_t)).sum(-1)[kept].sum() * 8 / drawn["ntokens"]
    log_p = log_probs(student, sample["net_input"])
    gold = -log_p.gather(2, sample["target"][..., None]).squeeze(2)[sample["target"].ne(PAD)].sum()
    assert loss.item() == pytest.approx((alpha * gold + (1 - alpha) * kd).item())
    assert (size, log["taught_tokens"]) == (8, 8)
    assert log["nll_loss"].item() == pytest.approx(gold.item())
    loss.backward()
    assert student.decoder.embed_tokens.weight.grad.abs().sum() > 0
    assert student.training
    assert criterion.eval()(student, sample)[2]["kd_loss"].item() != log["kd_loss"].item()  # on the references


def test_the_share_of_batches_on_policy():
    share = sum(coin(seed_of("word_level_kd", seed, 0)) < 0.3 for seed in range(3000)) / 3000
    assert share == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 3000))


def test_the_mean_over_dropout_passes(make):
    student, teacher, sample = make_model(1), make_model(2, dropout=0.4), make_sample()
    criterion = make(teacher, teacher_dropout_passes=3, kd_alpha=0.0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    loss, _, _ = criterion(student, sample)
    assert torch.equal(torch.get_rng_state(), before)
    assert not teacher.training
    outputs = criterion.terms[0].teachers.outputs(sample, torch.float64, "logits", 3, seed_of("word_level_kd", 5, 0))
    assert not torch.equal(outputs[0], outputs[1])
    q = torch.stack([torch.softmax(output, -1) for output in outputs]).mean(0)
    kept = sample["target"].reshape(-1).ne(PAD)
    log_p = log_probs(student, sample["net_input"]).flatten(0, 1)
    assert loss.item() == pytest.approx((q * (q.log() - log_p))[kept].sum().item())
    plain = criterion.eval()(student, sample)[0].item()
    log_t = log_probs(teacher, sample["net_input"]).flatten(0, 1)
    assert plain == pytest.approx((log_t.exp() * (log_t - log_p))[kept].sum().item())


def test_nothing_but_dropout_differs_in_dropout_passes(make):
    """A compressed teacher stays as compressed, noise that it was trained with stays away."""
    teacher, sample = make_model(2, dropout=0.4), make_sample()
    attach_plan(parse_plan('weights: [{modules: ["*"], bits: 2, noise: {start: 0.3}}]'), teacher)
    criterion = make(teacher, teacher_dropout_passes=2)
    for module in dropout_modules(teacher):
        if hasattr(module, "p"):
            module.p = 0.0
    outputs = criterion.terms[0].teachers.outputs(sample, torch.float64, "logits", 2, 1)
    plain = criterion.terms[0].teachers.outputs(sample, torch.float64, "logits")[0]
    assert all(torch.equal(output, plain) for output in outputs)
    with pytest.raises(ConfigError, match="--teacher-dropout-passes: must be 0 for a teacher without dropout, got 2"):
        make(teacher, teacher_dropout_passes=2)


def test_the_queue_needs_our_task():
    task = SimpleNamespace(target_dictionary=DICTIONARY, state=None)
    with pytest.raises(ConfigError, match="--selective-kd queue: needs --task compressed_translation"):
        WordLevelKDCriterion(WordLevelKDConfig(teacher_path="t.pt", selective_kd="queue"), task)


def test_all_problems_in_one_message(make):
    options = {
        "teacher_path": None, "kd_temperature": 0.0, "kd_alpha": 2.0, "jsd_beta": 0.3, "kd_ranking": -1,
        "kd_iterations": 3, "selective_kd_rate": 1.5, "on_policy_fraction": 0.5, "teacher_dropout_passes": -1,
    }  # fmt: skip
    with pytest.raises(ConfigError) as error:
        make(**options)
    for name in ("teacher-path", "kd-temperature", "kd-alpha", "jsd-beta", "kd-ranking", "kd-iterations",
                 "selective-kd-rate", "teacher-dropout-passes"):  # fmt: skip
        assert f"--{name}" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kd_divergence": "jsd"}, "--kd-divergence jsd: needs the teacher itself, not --teacher-cache"),
        ({"kd_ranking": 5}, "--kd-ranking 5: needs the teacher itself"),
        ({"on_policy_fraction": 0.5}, "--on-policy-fraction 0.5: needs the teacher itself"),
        ({"teacher_dropout_passes": 4}, "--teacher-dropout-passes 4: needs the teacher itself"),
        ({"kd_iterations": 2}, "--kd-iterations 2: needs the teacher itself"),
    ],
)
def test_what_a_cache_cannot_do(options, message, make):
    with pytest.raises(ConfigError, match=message):
        make(teacher_path=None, teacher_cache="cache", **options)


def test_what_does_not_go_with_samples(make):
    with pytest.raises(ConfigError, match="--selective-kd: must be none with --on-policy-fraction"):
        make(selective_kd="batch", on_policy_fraction=0.1)
