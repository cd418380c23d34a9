//! From a driver and a kernel to a port.
pub mod driver;
