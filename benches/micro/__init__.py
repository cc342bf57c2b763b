"""One operation at a time, in process."""
