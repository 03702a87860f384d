"""Where a gang goes: one small rule each."""
