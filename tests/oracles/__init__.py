"""Every loss from its textbook formula, in mpmath: one function per loss, named as the loss.

Written from the papers, not from the definitions, and evaluated with 50 digits.
"""
