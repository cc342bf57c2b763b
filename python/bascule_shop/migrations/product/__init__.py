"""The history of the product service's database."""
