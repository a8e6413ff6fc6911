"""Losses whose largest intermediate is never whole: made of matrix products over slices of rows.

``on_torch`` and ``on_jax`` offer the same functions; they need nothing but the framework, and
derive their gradients by hand, so that no slice is kept for later.
"""
