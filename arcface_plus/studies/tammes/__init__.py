"""tammes"""
