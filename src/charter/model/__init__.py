"""The ground floor: values that every room shares. Nothing here does I/O, reads a clock or draws randomness."""
