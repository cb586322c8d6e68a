"""From one machine to another: small records are merged, large files are packed in parts and rejoined by their hashes.

Reading order: source (another results folder), merge (what of it is taken), packing (files in parts), half (weights in
half precision).
"""
