"""Microservices for Python on structured concurrency."""
