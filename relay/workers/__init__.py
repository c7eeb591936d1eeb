"""Several relays on one port: a supervisor, which runs no relay itself, and workers in stable slots."""
