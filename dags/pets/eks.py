"""(written last)"""
