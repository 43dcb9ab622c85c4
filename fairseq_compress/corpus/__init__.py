"""Text before and after the model: cleaning, subwords, hypotheses. Needs neither torch nor fairseq."""
