"""The relay: one log in memory, and every client a cursor in it."""
