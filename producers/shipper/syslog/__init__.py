"""Messages of syslog that are received over the network (RFC 5424, RFC 3164)."""
