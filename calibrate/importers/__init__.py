"""Other tools' logs as measurements: an interpreter for every language a cluster's field books are written in.

One module a format; each is a function from a file's text to :class:`calibrate.importers.common.Imported`.
"""
