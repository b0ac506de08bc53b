"""How is load applied and timed?"""
