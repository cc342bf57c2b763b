"""The history of the payment service's database."""
