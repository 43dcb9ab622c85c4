"""A plugin of its own, as ``--user-dir``: every model gets a toy penalty, 0.5 · Σ w² of a matrix, from update 1 on."""

import fairseq  # noqa: F401 - before the plugin, which is registered then
from torch import nn

import fairseq_compress

fairseq_compress.register()

from fairseq_compress.functional.penalties import Penalty  # noqa: E402
from fairseq_compress.functional.schedules import Ramp  # noqa: E402
from fairseq_compress.tasks.compressed_translation import CompressedTranslationTask  # noqa: E402

WEIGHT = Ramp(0.0, 0.5, first=0, last=1)


class Toy(nn.Module):
    """Σ w² of a layer's weight, and the clock that its schedule could follow."""

    def __init__(self, layer):
        super().__init__()
        self.layer = (layer,)  # in a tuple, where nn.Module does not find it
        self.clock = None

    def set_clock(self, clock):
        self.clock = clock

    def penalties(self):
        yield Penalty("toy", lambda: self.layer[0].weight.square().sum(), WEIGHT)


def attach(model):
    """Give a model the penalty."""
    student = getattr(model, "student", model)
    student.toy = Toy(student.encoder.layers[0].fc1)
    return model


def install(kind: type = CompressedTranslationTask) -> None:
    """Let a task attach the penalty to the models that it builds."""
    build = kind.build_model

    def build_model(self, cfg, from_checkpoint=False):
        return attach(build(self, cfg, from_checkpoint))

    kind.build_model = build_model


if __name__ == "penalized":  # the name that fairseq imports a --user-dir under
    install()
