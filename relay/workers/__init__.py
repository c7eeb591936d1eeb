"""Several relays on one port: a supervisor that runs none itself, and its workers in stable slots."""
