//! Many cells: drivers × kernels.
