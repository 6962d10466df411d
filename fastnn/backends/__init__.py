"""Devices: their contract (:mod:`.base`), their list (:mod:`.registry`), and one module each."""
