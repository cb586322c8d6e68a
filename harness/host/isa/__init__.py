"""Shows a process of the bench another CPU's instruction set, so that its engine chooses that CPU's kernels.

Reading order: features (what there is to show, and the mask that hides the rest), cpuid.c (the library that answers
CPUID), patching and copies (of engines' libraries, for CPUs that cannot fault on CPUID), prepare (makes both), shown
(how a process is started so), evidence (whether it really was shown it). docs/target.md says what is mimicked.
"""
