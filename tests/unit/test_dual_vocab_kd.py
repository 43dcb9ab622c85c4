"""The criterion of dual-vocabulary training: each term by itself, batches cut in any way, the mean of an update."""

from types import SimpleNamespace

import pytest
import torch
from fairseq import options, tasks
from fairseq.criterions import build_criterion
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import fairseq_compress
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.word_kd import word_kd_loss, word_log_probs
from tests.helpers.dual_corpus import make_folder

fairseq_compress.register()
SMALL = [
    *("--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 8, "--encoder-ffn-embed-dim", 12),
    *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2, "--dropout", 0),
]
TEACHER = (
    '{"encoder_layers": 2, "decoder_layers": 1, "encoder_embed_dim": 12, "encoder_ffn_embed_dim": 20, "dropout": 0}'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("dual"), train=60, valid=8)


def configuration(folder, *arguments):
    """What fairseq-train makes of its arguments."""
    parser = options.get_training_parser()
    words = [
        folder, "--task", "dual_vocab_translation", "--dual-teacher-arch", "transformer_small", *SMALL,
        "--dual-teacher-options", TEACHER, "--arch", "transformer_small", "--criterion", "dual_vocab_kd",
        "--student-embeddings", "own", *arguments,
    ]  # fmt: skip
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, [str(word) for word in words]))


@pytest.fixture(scope="module")
def task(folder):
    made = tasks.setup_task(configuration(folder).task)
    made.load_dataset("train")
    return made


@pytest.fixture(scope="module")
def model(task, folder):
    torch.manual_seed(3)
    return task.build_model(configuration(folder).model).double().train()


def criterion(task, model, **values):
    torch.manual_seed(4)
    assert task.student is model
    arguments = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
    return build_criterion(configuration(task.cfg.data, *arguments).criterion, task).double()


def batch(task, indices):
    dataset = task.dataset("train")
    return dataset.collater(dataset.__getitems__(indices))


ALL = {"projection_loss": "both", "projection_weight": 0.1, "word_kd_weight": 0.5, "cross_entropy_weight": 0.7}


def test_the_sum_of_its_terms_by_hand(task, model):
    sample = batch(task, [0, 1, 2, 3])
    found, size, logged = criterion(task, model, label_smoothing=0.0, **ALL)(model, sample)
    whole = criterion(task, model, label_smoothing=0.0, **ALL)
    outputs = model(sample["net_input"], sample["teacher"]["net_input"])
    terms, lprobs = [], []
    for logits, target in zip(outputs, (sample["target"], sample["teacher"]["target"]), strict=True):
        chosen = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
        terms.append(-chosen[target != 1].sum())
        lprobs.append(chosen)
    words = sample["words"]
    count = int(words["student"].max()) + 1
    word = word_kd_loss(*(
        word_log_probs(chosen, words[name], count) for chosen, name in zip(lprobs, ("student", "teacher"), strict=True)
    ))  # fmt: skip
    distances = whole.projections.loss(weight.pair() for weight in whole.terms[-1].matched)
    expected = 0.7 * sum(terms) + 0.5 * word + size * 0.1 * (distances.down + distances.up)
    assert size == sample["ntokens"] == int((sample["target"] != 1).sum())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # words are in float32
    torch.testing.assert_close(logged["nll_loss"], terms[0], rtol=1e-9, atol=0)
    torch.testing.assert_close(logged["teacher_nll_loss"], terms[1], rtol=1e-9, atol=0)


@pytest.mark.parametrize("values", [{}, {"projection_loss": "down"}, {"word_kd_weight": 1.0}, ALL])
def test_a_batch_may_be_cut_in_any_way(task, model, values):
    """What gradient accumulation and processes rely on: sums of the parts are those of the whole."""
    loss = criterion(task, model, **values)
    parameters = [*model.parameters(), *loss.parameters()]

    def gradients(*parts):
        total, sizes = 0.0, 0
        for part in parts:
            value, size, _ = loss(model, batch(task, part))
            total, sizes = total + value, sizes + size
        return total / sizes, torch.autograd.grad(total / sizes, parameters, allow_unused=True)

    whole, cut = gradients([0, 1, 2, 3, 4]), gradients([4, 0], [2], [3, 1])
    torch.testing.assert_close(whole[0], cut[0], rtol=1e-6, atol=0)
    for one, other in zip(whole[1], cut[1], strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("embeddings", "values"),
    [("own", {}), ("own", {"projection_loss": "up"}), ("own", {"word_kd_weight": 1.0}), ("projected", {})],
)
def test_without_any_link_the_student_is_alone_and_is_told_so(task, folder, embeddings, values, caplog):
    other = tasks.setup_task(configuration(folder, "--student-embeddings", embeddings).task)
    both = other.build_model(configuration(folder).model).double().train()
    loss = criterion(other, both, label_smoothing=0.1, **values)
    alone = (embeddings, values) == ("own", {})
    assert alone == any("learns nothing from the teacher" in line for line in caplog.messages)
    if embeddings == "projected":
        return  # a table that is no parameter of a student alone
    sample = batch(task, [0, 1, 2, 3])
    loss(both, sample)[0].backward()
    found = {name: parameter.grad.clone() for name, parameter in both.student.named_parameters()}
    both.zero_grad()
    config = configuration(folder, "--label-smoothing", "0.1", "--criterion", "fused_label_smoothed_cross_entropy")
    build_criterion(config.criterion, task)(both.student, sample)[0].backward()
    assert alone == all(torch.equal(found[name], value.grad) for name, value in both.student.named_parameters())


def test_words_teach_the_student_and_not_the_teacher(task, model):
    loss = criterion(task, model, cross_entropy_weight=0.0, word_kd_weight=1.0)
    value, _, _ = loss(model, batch(task, [0, 1, 2]))
    value.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    assert any(grad is not None and grad.abs().sum() > 0 for name, grad in grads.items() if name.startswith("student."))
    assert all(grad is None or not grad.any() for name, grad in grads.items() if name.startswith("teacher."))


@pytest.mark.parametrize("embeddings", ["own", "projected"])
def test_both_ways_to_the_loss_agree(task, folder, embeddings):
    other = tasks.setup_task(configuration(folder, "--student-embeddings", embeddings).task)
    torch.manual_seed(3)
    model = other.build_model(configuration(folder).model).double().train()
    sample = batch(task, [0, 1, 2, 3, 4, 5])
    losses = [criterion(other, model, loss_from=way)(model, sample)[0] for way in ("logits", "hidden")]
    torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
    gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_projection_losses_are_of_training_only(task, model):
    loss = criterion(task, model, projection_loss="both").eval()
    plain = criterion(task, model).eval()
    sample = batch(task, [0, 1])
    found, _, logged = loss(model, sample)
    assert torch.equal(found, plain(model, sample)[0])
    assert "down_loss" not in logged


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (["--embedding-rank", 4], TEACHER, "needs plain embeddings of the student, got FactorizedEmbedding"),
        ([], '{"embedding_rank": 4}', "needs plain embeddings of the teacher, got FactorizedEmbedding"),
        ([], '{"share_all_embeddings": false}', "needs a teacher that shares all embeddings, as the student does"),
        (["--no-share-all-embeddings"], TEACHER, "needs a student whose output is tied to its embeddings"),
    ],
)
def test_what_cannot_be_projected(folder, student, teacher, message):
    cfg = configuration(folder, "--student-embeddings", "projected", *student, "--dual-teacher-options", teacher)
    with pytest.raises(ConfigError, match=f"--student-embeddings projected: {message}"):
        tasks.setup_task(cfg.task).build_model(cfg.model)


def test_wrong_options_in_one_message(task, model):
    with pytest.raises(ConfigError, match="--loss-from hidden: must be auto or logits with --word-kd-weight"):
        criterion(task, model, word_kd_weight=1.0, loss_from="hidden")
    with pytest.raises(ConfigError) as error:
        criterion(task, model, word_kd_weight=-1.0, projection_weight=-2.0, layer_map="encoder:0 decoder:0")
    for rule in (
        "--word-kd-weight: must be in [0, inf), got -1.0", "--projection-weight: must be in [0, inf), got -2.0",
        "--layer-map: requires --projection-loss, got encoder:0 decoder:0 alone",
    ):  # fmt: skip
        assert rule in str(error.value)
    stranger = SimpleNamespace(target_dictionary=task.target_dictionary)
    with pytest.raises(ConfigError, match="needs --task dual_vocab_translation"):
        build_criterion(configuration(task.cfg.data).criterion, stranger)
