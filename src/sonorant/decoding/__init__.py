"""Searches over scores: greedy, beam, alignment, rescoring."""
