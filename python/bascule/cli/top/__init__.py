"""``bascule top``: metrics of running processes, read again and again and shown as they change."""
