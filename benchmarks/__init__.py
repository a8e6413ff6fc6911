"""Side-by-side measurements of Lossary and its peers: ``python -m benchmarks``."""
