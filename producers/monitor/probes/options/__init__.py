"""Settings that several kinds of probes share: TLS, secrets, headers and conditions on a response."""
