"""Will a motor policy have a claim within a year?"""
