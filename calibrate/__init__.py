"""Measure accelerators, links and storage with torch, and fit what was measured into a profile.

``calibrate`` is the surveyor: it goes to the site, measures, and writes down what it found. It predicts nothing.
"""
