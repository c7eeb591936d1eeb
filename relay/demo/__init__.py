"""``tickertape demo``: real input for the real programs, on one machine, with nothing to configure."""
