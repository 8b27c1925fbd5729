"""The detectors' scoring as hand-written nodes, in 8-bit integers, for CPUs."""
