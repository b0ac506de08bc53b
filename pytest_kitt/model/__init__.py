"""Which model is meant, and what is it?"""
