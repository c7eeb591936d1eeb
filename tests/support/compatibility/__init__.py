"""State, files and clients of earlier versions, which this version must be able to use."""
