"""From the points of any wire format to samples: the mapping language, what it does, and the mappings that are shipped.

A mapping is data, one file for each source.  The room is pure: points in, samples out.

`gather.samples_of(raw, mapping, points, catalog, given)` is the whole way in one call.
"""
