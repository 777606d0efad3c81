"""SQL over the published history for whoever speaks MySQL: Grafana, BI tools, notebooks."""
