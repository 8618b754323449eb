"""The commands of `slmhub`, a module for each subject."""
