"""What settings are made of, and YAML files read into them with every mistake named."""
