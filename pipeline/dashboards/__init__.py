"""Grafana dashboards as typed Python, and how they come into a Grafana."""
