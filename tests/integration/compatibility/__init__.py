"""Streams, data directories, checkpoints, files and clients of earlier versions."""
