"""The contract between edges, workers and taps: pure functions and data, no I/O."""
