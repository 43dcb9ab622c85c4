"""``fairseq-compress materialize``: any checkpoint -> one of fairseq's plain ``transformer``."""

from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common

HELP = (
    "Write a checkpoint as one of fairseq's plain transformer: dense weights, and a configuration that stock fairseq "
    "and its converters load without --user-dir. It is written only if its output equals that of the original."
)
EXAMPLES = ("student.pt plain.pt", "student-int4.safetensors plain.pt")
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("a checkpoint of any architecture of ours, packed or not")
    output: str = common.output("the plain checkpoint, without optimizer", "PLAIN.pt")


def run(args: Options) -> None:
    register()
    from fairseq_compress.checkpoint.average import count_parameters
    from fairseq_compress.checkpoint.materialize import write_materialized

    state = write_materialized(args.checkpoint, args.output)
    values = state["cfg"]["model"]
    common.tell(
        f"{args.output}: transformer, {values['encoder_layers']}+{values['decoder_layers']} layers, width "
        f"{values['encoder_embed_dim']}, {count_parameters(state['model']):,} parameters"
    )
