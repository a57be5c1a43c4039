"""Statistics over utterances: correlations, intervals, heads, words. Tables, no files."""
