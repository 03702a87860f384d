"""Parallel plans by the thousand: which there are, how full they make a device, how long their steps take."""
