"""When each source is polled, what came of it, and the exporter's metrics about itself."""
