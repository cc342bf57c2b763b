"""Types of the Rust core. stubtest holds this file to the compiled module."""
