"""nearest"""
