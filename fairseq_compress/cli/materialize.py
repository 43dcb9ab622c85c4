"""``fairseq-compress materialize``: any checkpoint -> one of fairseq's plain ``transformer``."""

from dataclasses import dataclass

from fairseq_compress import register
from fairseq_compress.cli import common

HELP = (
    "Convert a checkpoint to fairseq's plain transformer with dense weights, which stock fairseq and converters such "
    "as CTranslate2's load without --user-dir. It is written only if its log-probabilities equal those of the original."
)
EXAMPLES = ("student.pt plain.pt", "student-int4.safetensors plain.pt")
POSITIONAL = ("checkpoint", "output")


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str = common.checkpoint("a checkpoint of stock fairseq or of this plugin, packed or not")
    output: str = common.output("the plain checkpoint, without optimizer state", "PLAIN.pt")


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
