"""What repeated runs say, and how surely: streams of chance, replications, intervals, warm-up, choosing the best."""
