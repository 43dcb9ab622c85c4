"""What the tests of learning from hidden states share: options, and the criterion in this process."""

import torch
from fairseq import options, tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

import fairseq_compress
from tests.conftest import TINY

fairseq_compress.register()
LAYERS = ["--feature-weight", "0.7", "--feature-mean-weight", "0.2", "--feature-variance-weight", "0.3"]
INSIDE = [*LAYERS, "--cosine-weight", "0.4", "--attention-weight", "0.6"]
NARROW = ["--encoder-embed-dim", "8", "--decoder-embed-dim", "8"]
FOUR_HEADS = ["--encoder-attention-heads", "4", "--decoder-attention-heads", "4"]
CONVOLUTION = ["--attention-head-map", "convolution"]
TERMS = ("cosine", "feature", "feature_mean", "feature_variance", "attention")


def start(teacher, *widths):
    """The teacher's embeddings, as a layer phase requires them."""
    return ["--init-from-teacher", teacher, "--init-layers", "encoder:none decoder:none", *widths]


def arguments(train_arguments, teacher, *extra):
    return [
        *train_arguments, "--arch", "transformer_small", *TINY, "--dropout", "0", "--criterion", "hidden_state_kd",
        "--teacher-path", str(teacher), *map(str, extra),
    ]  # fmt: skip


def built(given):
    """Task, model and criterion as fairseq-train makes them, and a function that makes a batch of validation pairs."""
    cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), given))
    torch.manual_seed(1)
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    task.load_dataset("valid")
    dataset = task.dataset("valid")
    return task, model, criterion, lambda rows: dataset.collater([dataset[row] for row in rows])
