"""Real servers for the tests, started, seeded and read without any code of the exporter."""
