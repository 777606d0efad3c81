"""Gigawatch holds AI-compute suppliers to their contracts."""
