"""Windows, mergeable aggregates, histograms, and the delta: what a batch of records adds up to.

Everything here is SQL text and values; nothing runs, nothing reads a clock.
"""
