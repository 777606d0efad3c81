"""From the points of any wire format to samples: the mapping language, what it does, and the mappings that are shipped.

A mapping is data, one file for each source.  A recording has one too, of columns in place of metrics
(`recording_mapping.py`).  The room is pure: points or cells in, samples or values out.

`gather.samples_of(raw, mapping, points, catalog, given)` is the whole way in one call.
"""
