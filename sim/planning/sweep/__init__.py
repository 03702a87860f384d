"""A sweep: one scenario, some of its values varied, every point run, resumed and tabled."""
