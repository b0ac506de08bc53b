"""How is an engine started, asked and stopped?"""
