"""Pure tensor mathematics: tensors in, tensors out. Nothing here knows fairseq."""
