"""Receiver of OpenTelemetry logs over HTTP."""
