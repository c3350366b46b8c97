"""Is it a cat or a dog?"""
