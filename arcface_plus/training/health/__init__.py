"""What a run is watched for while it trains.

guard            losses and gradients that are not finite
uniform_monitor  what uniform classes would measure, beside a run; classes that are too near
quarantine       unreadable images: the list and its limit (data/batches/loader replaces them)
"""
