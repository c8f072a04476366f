"""Hot operations and the host they run on."""
