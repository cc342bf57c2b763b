"""Messages of the services that bascule brings along."""
