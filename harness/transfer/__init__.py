"""From one machine to another: small records are merged, large files are packed in parts and unpacked again.

Reading order: foreign_results (a results folder of another machine), decisions (the rules of what is taken), merging;
manifest (what a pack is), half_precision (weights at half the size), packing, unpacking. What comes from another
machine is read through foreign_files, which follows no link out of the folder that the user named.
"""
