"""Capacity plans: needs -> fleets -> flow -> money -> regret -> decision; each module one station, each a page."""
