"""The history of the user service's database."""
