"""Metric families as values, what is observed in them, and the text that Prometheus reads."""
