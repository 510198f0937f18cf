"""What a run is watched for while it trains.

watch            one look at the numbers of the steps: asks the next three
guard            losses and gradients that are not finite
spikes           losses far above those of the steps before
forensics        RUN/forensics: what is known of a step that went wrong
uniform_monitor  what uniform classes would measure, beside a run; classes that are too near
quarantine       unreadable images: the list and its limit (data/batches/loader replaces them)
"""
