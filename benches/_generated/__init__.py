"""Made from ``benches/proto`` by scripts/generate.py."""
