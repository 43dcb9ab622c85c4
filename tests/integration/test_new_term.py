"""A term of hidden states that is one file outside of the package: options, checks, loss, metrics, resumption."""

import re
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, run_command
from tests.helpers.hidden_norm import HiddenNormCriterion
from tests.helpers.hidden_states import NARROW, arguments, built

USER_DIR = ROOT / "tests" / "helpers" / "hidden_norm"
GIVEN = ["--criterion", "hidden_norm_kd", "--hidden-norm-weight", 0.25]


def test_the_loss_by_hand(train_arguments, teacher):
    _, model, criterion, batch = built(arguments(train_arguments, teacher, *GIVEN))
    assert isinstance(criterion, HiddenNormCriterion)
    seen = {}
    models = {"student": model.eval(), "teacher": criterion.layers.teacher.models[0]}
    for side, one in models.items():
        for part in ("encoder", "decoder"):
            for number, layer in enumerate(getattr(one, part).layers):
                layer.register_forward_hook(
                    lambda _, __, out, key=(side, part, number): seen.__setitem__(
                        key, out[0] if isinstance(out, tuple) else out
                    )
                )
    sample = batch(range(5))
    loss, _, log = criterion(model, sample)
    padding = {"encoder": sample["net_input"]["src_tokens"].eq(1), "decoder": sample["target"].eq(1)}
    pairs = [("encoder", 0), ("encoder", 1), ("decoder", 0)]
    want = 0.0
    for part, number in pairs:
        norms = [seen[side, part, number].norm(dim=2).t()[~padding[part]] for side in models]
        want += sum((s - t) ** 2 for s, t in zip(*(norm.tolist() for norm in norms), strict=True)) / 3
    assert log["hidden_norm_loss"].item() == pytest.approx(want, rel=1e-5)
    words = 0.5 * log["gold_loss"] + 0.5 * log["kd_loss"]
    assert loss.item() == pytest.approx(float(words) + 0.25 * want, rel=1e-5)


def test_it_trains_by_name_and_resumes_bit_equal(train_arguments, teacher, tmp_path: Path):
    base = [
        option for option in arguments(train_arguments, teacher, *GIVEN, *NARROW) if option != "--no-last-checkpoints"
    ]
    base[base.index("--user-dir") + 1] = str(USER_DIR)
    states = []
    for name, stops in (("whole", [4]), ("resumed", [2, 4])):
        for updates in stops:
            log = run_command("fairseq-train", *base, "--max-update", updates, "--save-dir", tmp_path / name).stdout
        assert float(re.findall(r"[ |]hidden_norm_loss[= ]([\d.]+)", log)[-1]) > 0
        states.append(torch.load(tmp_path / name / "checkpoint_last.pt", weights_only=False))
    assert sorted(states[0]["criterion"]) == ["maps.linear.decoder_0", "maps.linear.encoder_0", "maps.linear.encoder_1"]
    for part in ("model", "criterion"):
        assert all(torch.equal(value, states[1][part][key]) for key, value in states[0][part].items())
    result = run_command("fairseq-train", *base, "--hidden-norm-weight", 11, "--save-dir", tmp_path, check=False)
    assert result.stdout.splitlines()[-1].endswith("--hidden-norm-weight: must be in [0, 10], got 11.0")
