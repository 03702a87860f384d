"""Speed and accuracy studies that are too long for the test suite. `make bench` runs the speed ones."""
