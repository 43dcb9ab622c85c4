"""Cost of a training step of each distillation objective, relative to word-level distillation with a live teacher.

    python benchmarks/objectives.py [--arch transformer_student_tiny] [--teacher transformer_student_base]

A step is what fairseq does for one batch: criterion, backward, clipping, Adam. All students have the same weights,
dropout and teacher. On-policy samples are drawn in every batch (``--on-policy-fraction 1``) from an untrained student,
whose samples have the greatest possible length: the highest cost. Random text.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from typing import Any

from fairseq.data import Dictionary
from measure import header, medians
from training_steps import SMOOTHING, batch, build, training_step

import fairseq_compress

fairseq_compress.register()
from fairseq_compress.criterions import layer_transfer  # noqa: E402 - registered by now
from fairseq_compress.criterions.hidden_state_kd import HiddenStateKDConfig, HiddenStateKDCriterion  # noqa: E402
from fairseq_compress.criterions.label_smoothed import FusedLabelSmoothedConfig, FusedLabelSmoothedCriterion  # noqa: E402
from fairseq_compress.criterions.terms import word_level  # noqa: E402
from fairseq_compress.criterions.word_level_kd import WordLevelKDConfig, WordLevelKDCriterion  # noqa: E402
from fairseq_compress.models.presets import PRESETS  # noqa: E402
from fairseq_compress.tasks.compressed_translation import (  # noqa: E402
    CompressedTranslationConfig,
    CompressedTranslationTask,
)
from fairseq_compress.teachers.frozen import FrozenTeachers  # noqa: E402

FEATURES = {"feature_weight": 100.0, "feature_mean_weight": 5000.0, "feature_variance_weight": 5.0}
WORD_LEVEL: dict[str, dict[str, Any]] = {
    "word-level KD": {},
    "reverse KL": {"kd_divergence": "reverse_kl"},
    "Jensen-Shannon": {"kd_divergence": "jsd"},
    "selective, batch": {"selective_kd": "batch"},
    "selective, queue": {"selective_kd": "queue"},
    "TIE-KD, three passes": {"kd_iterations": 3, "kd_ranking": 5},
    "three dropout passes": {"teacher_dropout_passes": 3},
    "on policy, every batch": {"on_policy_fraction": 1.0},
}
INSIDE: dict[str, dict[str, Any]] = {
    "triple loss": {"cosine_weight": 1.0},
    "feature maps": FEATURES,
    "attention maps": {"attention_weight": 1.0},
    "feature and attention maps": FEATURES | {"attention_weight": 1.0},
    "align-to-distill": {"attention_weight": 1.0, "attention_head_map": "convolution"},
}


def steps(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    dictionary = Dictionary()
    for number in range(options.vocabulary - len(dictionary)):
        dictionary.add_symbol(str(number))
    languages = CompressedTranslationConfig(source_lang="en", target_lang="cs")
    teacher = build(
        "compressed_transformer", options.teacher, CompressedTranslationTask(languages, dictionary, dictionary)
    )
    frozen = FrozenTeachers.__new__(FrozenTeachers)
    frozen.models = [teacher.eval().requires_grad_(False)]
    word_level.FrozenTeachers = layer_transfer.FrozenTeachers = lambda *_: frozen
    sample = batch(options.sentences, options.length, options.vocabulary)
    values = {"label_smoothing": SMOOTHING, "sentence_avg": False}

    def step(criterion: type, config: type, **given: Any) -> Callable[[], None]:
        task = CompressedTranslationTask(languages, dictionary, dictionary)
        student = build("compressed_transformer", options.arch, task)
        task._student = lambda: student
        return training_step(student, criterion(config(**values, **given), task).train(), sample)

    found = {"cross-entropy, no teacher": step(FusedLabelSmoothedCriterion, FusedLabelSmoothedConfig)}
    for name, given in WORD_LEVEL.items():
        found[name] = step(WordLevelKDCriterion, WordLevelKDConfig, teacher_path="t", **given)
    for name, given in INSIDE.items():
        found[name] = step(HiddenStateKDCriterion, HiddenStateKDConfig, teacher_path="t", **given)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=sorted(PRESETS), default="transformer_student_tiny")
    parser.add_argument("--teacher", choices=sorted(PRESETS), default="transformer_student_base")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--sentences", type=int, default=40)
    parser.add_argument("--length", type=int, default=25)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="for a machine with other work, at one thread")
    options = parser.parse_args()
    logging.disable(logging.INFO)  # of fairseq's imports
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # of fairseq's attention
    text = (
        f"training step, {options.arch} from {options.teacher}, V={options.vocabulary}, "
        f"batch {options.sentences} x {options.length}, float32"
    )
    print(header(text, options.runs, options.cpu_time))
    seconds = medians(steps(options), options.runs, options.cpu_time)
    for name, value in seconds.items():
        print(f"  {name:<34}{value * 1000:9.1f} ms {value / seconds['word-level KD']:6.2f}")


if __name__ == "__main__":
    main()
