"""Models that engines load: what is known of them, where they lie, and whether they are whole.

Nothing here imports torch; `pull` alone needs the network.
"""
