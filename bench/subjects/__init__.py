"""Subjects: how each of them is started and asked, with the same limits, the same store and the same downstream."""
