"""What arrives, whatever its wire format: one file for each format, and how the texts in it are read.

A format of events says which samples a record holds, with care and for a whole batch in SQL (`event_format.py`).  A format of
points says which points a message holds (`point_format.py`); which of them are one sample, and in what units, a mapping
says (`pipeline/mappings`).  So N formats and M sources are N + M files.  `registry.FORMATS` has all of them.

The room is pure: bytes in, values and SQL out.
"""
