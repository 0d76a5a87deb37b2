"""Initial weights of a small model, cut out of a large one; `trainer.inherit` is the program."""
