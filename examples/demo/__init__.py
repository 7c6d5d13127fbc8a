"""`make demo`: from a drive through a simulated world to recognised places."""
