"""Text before and after the model: cleaning, subwords, hypotheses; without torch and fairseq."""
