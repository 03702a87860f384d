"""Failures as streams of outages, what a job saves itself with, and the run of one large job through them."""
