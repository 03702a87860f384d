"""Planning: many scenarios, one choice: sweeps, tuned plans, and what capacity to get."""
