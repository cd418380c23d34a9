//! From a driver and a kernel to a port.
