"""The embedded demonstration: a small trained network and the data it has not seen."""
