"""What arrives, whatever its wire format, as points and samples: one file for each format, mappings beside them.

A format says which points a message holds; a mapping says which points are one sample, and in what units.  So N formats
and M sources are N + M files.  The room is pure: text in, samples out.

`gather.samples_of(raw, mapping, format, given)` is the whole way in one call.
"""
