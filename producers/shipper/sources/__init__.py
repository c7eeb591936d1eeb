"""Sources of event streams, as the settings name them."""
