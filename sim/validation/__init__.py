"""Predicted against measured: how far to believe the model, row by row."""
