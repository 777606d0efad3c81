"""What arrives, whatever its wire format, as points: one file for each format, and how texts in it are read.

A format says which points a message holds; which of them are one sample, and in what units, a mapping says
(`pipeline/mappings`).  So N formats and M sources are N + M files.  The room is pure: bytes in, values out.
"""
