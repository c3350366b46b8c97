"""Will a flight arrive fifteen minutes late or more?"""
