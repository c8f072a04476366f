"""File formats that other programs write: bytes to tensors and back, checked before they are believed."""
