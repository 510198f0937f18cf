"""Configurations of other trainers, read without running them.

python_config   assignments of plain values in a Python file; anything else is refused by line
arcface_torch   a configuration of arcface_torch as one of ours, and what it could not carry
"""
