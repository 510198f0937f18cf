"""closeness"""
