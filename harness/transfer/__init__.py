"""From one machine to another: small records are merged, large files are packed in parts and rejoined by their hashes.

Reading order: source (another results folder), decisions (the rules of what is taken), merge; manifest (what a pack
is), packing, half (weights in half precision).
"""
