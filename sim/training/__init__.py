"""One training step: from a scenario to a timeline.

``layers`` writes down the work of a plan, ``pricing`` puts seconds on it, ``program`` orders it into tasks,
``engine`` plays the tasks on SimPy, and ``step`` joins the four.
"""
