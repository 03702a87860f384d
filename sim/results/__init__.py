"""What is made of a run's log: tables, accounts, traces. Nothing here simulates."""
