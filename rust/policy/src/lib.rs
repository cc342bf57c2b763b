//! Breakers, limiters and balancers without I/O: time is an argument.
