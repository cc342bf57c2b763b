"""What bascule costs, measured beside its peers: ``python -m benches``."""
