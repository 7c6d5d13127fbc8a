"""Training of ETR from maps: pairs, the loop, and what it needs to augment pictures."""
