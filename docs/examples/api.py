"""The Python API by example: translate, load, quantize, compare.

    python docs/examples/api.py EXPORTED CHECKPOINT DATA

EXPORTED: a directory of ``fairseq-compress export``; CHECKPOINT: a checkpoint of fairseq; DATA: the folder with its
``dict.LANG.txt``.
"""

import sys

import fairseq_compress

exported, checkpoint, data = sys.argv[1:]

# 1. Translate text. This part needs neither torch nor fairseq.
translator = fairseq_compress.Translator(exported, threads=1, beam=4)
lines = ["A dog runs across the street.", ""]
for line, translation in zip(lines, translator(lines), strict=True):
    print(f"{line!r} -> {translation!r}")
for hypothesis in translator.nbest(lines[:1], 3)[0]:
    print(f"{hypothesis.score:8.4f} {hypothesis.text}")
print(f"{translator.metadata['runtime']}, {translator.metadata['quantization']}, {translator.metadata['bytes']} bytes")

# 2. The rest needs torch and fairseq. Load a checkpoint, and quantize a copy of its model to 4 bits. A plan is a YAML
# file or a mapping.
import torch  # noqa: E402

from fairseq_compress import functional  # noqa: E402

loaded = fairseq_compress.load(checkpoint, data=data)
plan = {"weights": [{"modules": ["*"], "bits": 4, "granularity": "row"}]}
quantized = fairseq_compress.quantize(loaded.model, plan)

# 3. Measure the effect: both models predict the same tokens, and the word-level distillation loss compares them.
words = loaded.target_dictionary.symbols[4:12]
source = loaded.source_dictionary.encode_line(" ".join(words), add_if_not_exist=False)[None].long()
target = loaded.target_dictionary.encode_line(" ".join(words), add_if_not_exist=False)[None].long()
previous = target.roll(1, dims=1)  # fairseq's decoder starts with </s>
lengths = torch.tensor([source.size(1)])
with torch.no_grad():
    teacher, student = (model(source, lengths, previous)[0][0] for model in (loaded.model, quantized))  # (T, V)
loss = functional.word_level_kd_loss(student, [teacher], target[0], temperature=1.0, gold_weight=0.0, kd_weight=1.0)
print(f"KL(float32 || 4 bits) = {loss.kd.item() / target.size(1):.5f} nats a token")
