"""How each node of a fleet stands: the doctor's round, every reading beside what is normal here and on paper."""
